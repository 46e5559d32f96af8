"""Lists of images from class folders, or from one folder with ILSVRC's solution file.

Directories are strings, local or gs://.
"""

import csv
import posixpath
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from an_jax.data.sources import ImageList
from an_jax.data.tf_on_cpu import tf
from an_jax.errors import InputError

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png")


def list_directory(path: str) -> list[str]:
    """Returns the sorted names of a directory's entries."""
    return sorted(name.rstrip("/") for name in tf.io.gfile.listdir(path))


def is_directory(*parts: str) -> bool:
    """Whether the joined path is a directory."""
    return tf.io.gfile.isdir(posixpath.join(*parts))


def has_folders(root: str) -> bool:
    """Whether a directory holds folders.

    Tests only the first 100 entries: each test is a slow request on gs://, and a flat folder has
    50,000 files.
    """
    return any(is_directory(root, entry) for entry in list_directory(root)[:100])


def open_class_folders(
    root: str, label_of: Mapping[str, int], suffixes: tuple[str, ...] = IMAGE_SUFFIXES
) -> ImageList:
    """Lists images that are stored in one folder per class, sorted by folder and file name.

    Some of the class folders may be absent; labels do not depend on which are there.

    Args:
        root: directory of the class folders.
        label_of: folder name -> label.
        suffixes: lower-case file suffixes; other files are ignored.

    Raises:
        InputError: a folder is not one of the classes, or there are no images.
    """
    entries = list_directory(root)
    unknown = [e for e in entries if e not in label_of and is_directory(root, e)]
    if unknown:
        count = "1 folder is" if len(unknown) == 1 else f"{len(unknown):,} folders are"
        examples = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        raise InputError(
            f"{root}: {count} not among the {len(set(label_of.values())):,} classes ({examples}). "
            f"Expected folders such as {next(iter(label_of))}"
        )
    folders = [entry for entry in entries if entry in label_of]
    paths = [posixpath.join(root, folder) for folder in folders]
    with ThreadPoolExecutor(32) as pool:  # listing a folder on gs:// takes 0.1 seconds
        contents = list(pool.map(_list_files, paths, [suffixes] * len(paths)))
    names = [f"{f}/{file}" for f, files in zip(folders, contents, strict=True) for file in files]
    labels = [label_of[f] for f, files in zip(folders, contents, strict=True) for _ in files]
    _check_not_empty(names, root, suffixes)
    return ImageList(names, np.array(labels, np.int32), root)


def open_flat_folder(root: str, solution: str, class_ids: Sequence[str]) -> ImageList:
    """Lists the images of one folder, with labels from ILSVRC's LOC_val_solution.csv.

    Args:
        root: directory of the images.
        solution: path of the CSV file.
        class_ids: WordNet id of each label.

    Raises:
        InputError: there are no images, or the file lacks a column or an image.
    """
    wnid_of = _read_solution(solution)
    label_of = {wnid: label for label, wnid in enumerate(class_ids)}
    names = _list_files(root, IMAGE_SUFFIXES)
    _check_not_empty(names, root, IMAGE_SUFFIXES)
    wnids = [wnid_of.get(posixpath.splitext(name)[0], "") for name in names]
    unlabelled = [name for name, wnid in zip(names, wnids, strict=True) if wnid not in label_of]
    if unlabelled:
        raise InputError(
            f"{solution} has no class for {len(unlabelled)} of the images in {root}, "
            f"for example {unlabelled[0]}"
        )
    return ImageList(names, np.array([label_of[wnid] for wnid in wnids], np.int32), root)


def _read_solution(path: str) -> dict[str, str]:
    """Image name without suffix -> WordNet id."""
    with tf.io.gfile.GFile(path) as file:
        rows = csv.DictReader(file.read().splitlines())
    try:
        return {row["ImageId"]: row["PredictionString"].split()[0] for row in rows}
    except (KeyError, IndexError, AttributeError) as error:
        raise InputError(f"{path} lacks ImageId or PredictionString: get it again") from error


def _list_files(folder: str, suffixes: tuple[str, ...]) -> list[str]:
    names = list_directory(folder) if is_directory(folder) else []
    return [n for n in names if n.lower().endswith(suffixes) and not n.startswith(".")]


def _check_not_empty(names: Sequence[str], root: str, suffixes: tuple[str, ...]) -> None:
    if not names:
        raise InputError(f"{root} holds no images (looked for {', '.join(suffixes)})")
