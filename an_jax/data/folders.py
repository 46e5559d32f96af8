"""Lists of images from class folders, or from one folder with labels in a file or in the names.

Directories are strings, local or gs://.
"""

import csv
import posixpath
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from an_jax.data.sources import ImageList
from an_jax.data.text_files import compose, read_text
from an_jax.data.tf_on_cpu import explain, tf
from an_jax.errors import InputError, file_errors

# Those of torchvision's ImageFolder.
IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
# ImageFolder leaves these images out without a word.
_UNSUPPORTED = (".avif", ".gif", ".heic", ".heif", ".jp2", ".pbm")
_HIDDEN = ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information")


def is_hidden(name: str) -> bool:
    """Whether an entry of a directory is hidden, or was made by an archiver or file server."""
    return name.startswith(".") or name in _HIDDEN


def list_directory(path: str) -> list[str]:
    """Returns the sorted names of a directory's entries that are not hidden.

    Raises:
        InputError: a name is not UTF-8.
    """
    try:
        names = [name.rstrip("/") for name in tf.io.gfile.listdir(path)]
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: the file name {error.object!r} is not UTF-8, which TensorFlow requires. "
            f"Rename the files, for example with convmv -r -f latin1 -t utf8 --notest {path}"
        ) from error
    return sorted(name for name in names if not is_hidden(name))


def is_directory(*parts: str) -> bool:
    """Whether the joined path is a directory.

    Raises:
        tf.errors.OpError: that is unknown, for example without network or credentials.
    """
    try:
        return tf.io.gfile.stat(posixpath.join(*parts)).is_directory
    except (tf.errors.NotFoundError, tf.errors.FailedPreconditionError):
        return False


def check_data_directory(data_dir: str) -> None:
    """Raises InputError if a data directory does not exist or cannot be read."""
    try:
        is_there = is_directory(data_dir)
    except file_errors() as error:
        raise InputError(f"data directory {data_dir} cannot be read: {explain(error)}") from error
    if not is_there:
        raise InputError(f"no data directory {data_dir}")


def has_folders(root: str) -> bool:
    """Whether a directory holds folders.

    Does not test entries that are named like images: each test is a slow request on gs://, and a
    flat folder has 50,000 files.
    """
    entries = (e for e in list_directory(root) if not e.lower().endswith(IMAGE_SUFFIXES))
    return any(is_directory(root, entry) for entry in entries)


def has_labels_in_names(root: str) -> bool:
    """Whether the images of a directory are named NAME_WNID.JPEG, as in Hugging Face's archives."""
    return any(_wnid_in_name(name) for name in list_directory(root))


def open_class_folders(
    root: str,
    label_of: Mapping[str, int],
    suffixes: tuple[str, ...] = IMAGE_SUFFIXES,
    *,
    allow_empty: bool = False,
) -> ImageList:
    """Lists images that are stored in one folder per class, sorted by folder and file name.

    Some of the class folders may be absent; labels do not depend on which are there.

    Args:
        root: directory of the class folders.
        label_of: folder name -> label; compared in Unicode's composed form.
        suffixes: lower-case file suffixes; other files are ignored.
        allow_empty: whether class folders may be empty.

    Raises:
        InputError: a folder is not one of the classes or has no image that can be read, an image
            has an unsupported format, or there are no images.
    """
    label_of = {compose(name): label for name, label in label_of.items()}
    entries = list_directory(root)
    unknown = [e for e in entries if compose(e) not in label_of and is_directory(root, e)]
    if unknown:
        count = "1 folder is" if len(unknown) == 1 else f"{len(unknown):,} folders are"
        examples = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        raise InputError(
            f"{root}: {count} not among the {len(set(label_of.values())):,} classes ({examples}). "
            f"Expected folders such as {next(iter(label_of))}"
        )
    folders = [entry for entry in entries if compose(entry) in label_of]
    contents = _list_folders(root, folders)
    names, labels = [], []
    for folder, entries in contents.items():
        path = posixpath.join(root, folder)
        files = _select_images(path, entries, suffixes)
        names += [f"{folder}/{file}" for file in files]
        labels += [label_of[compose(folder)]] * len(files)
        if not files and (entries or not allow_empty):
            raise InputError(f"{path}: the class folder {_describe(entries, suffixes)}")
    if not names:
        raise InputError(f"{root} holds no images (looked for {', '.join(suffixes)})")
    return ImageList(names, np.array(labels, np.int32), root)


def open_flat_folder(root: str, solution: str | None, class_ids: Sequence[str]) -> ImageList:
    """Lists the images of one folder, with labels from ILSVRC's LOC_val_solution.csv or the names.

    Args:
        root: directory of the images.
        solution: path of the CSV file; None if the images are named NAME_WNID.JPEG.
        class_ids: WordNet id of each label.

    Raises:
        InputError: there are no images or one of an unsupported format, or the file lacks a column
            or an image.
    """
    label_of = {wnid: label for label, wnid in enumerate(class_ids)}
    entries = list_directory(root)
    names = _select_images(root, entries, IMAGE_SUFFIXES)
    if not names:
        raise InputError(f"{root} {_describe(entries, IMAGE_SUFFIXES)}")
    if solution is None:
        wnids = [_wnid_in_name(name) for name in names]
    else:
        wnid_of = _read_solution(solution)
        wnids = [wnid_of.get(posixpath.splitext(name)[0], "") for name in names]
    unlabelled = [name for name, wnid in zip(names, wnids, strict=True) if wnid not in label_of]
    if unlabelled:
        raise InputError(
            f"{solution or 'The file name'} has no class for {len(unlabelled)} of the images in "
            f"{root}, for example {unlabelled[0]}"
        )
    return ImageList(names, np.array([label_of[wnid] for wnid in wnids], np.int32), root)


def _read_solution(path: str) -> dict[str, str]:
    """Image name without suffix -> WordNet id."""
    try:
        rows = csv.DictReader(read_text(path).splitlines())
        return {row["ImageId"]: row["PredictionString"].split()[0] for row in rows}
    except (KeyError, IndexError, AttributeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} lacks ImageId or PredictionString: get it again") from error


def _wnid_in_name(name: str) -> str:
    match = re.search(r"_(n\d{8})\.[^.]+$", name)
    return match[1] if match else ""


def _list_folders(root: str, folders: Sequence[str]) -> dict[str, list[str]]:
    """Returns the sorted entries of each folder in `root` that are not hidden."""
    if "://" not in root:
        paths = (posixpath.join(root, folder) for folder in folders)
        with ThreadPoolExecutor(32) as pool:  # disks of the network take long
            return dict(zip(folders, pool.map(_list_folder, paths), strict=True))
    # A bucket lists 1000 objects a request, of all folders; each folder alone takes several.
    contents: dict[str, list[str]] = {folder: [] for folder in folders}
    pattern = posixpath.join(re.sub(r"([*?\[])", r"[\1]", root), "*", "*")
    for path in sorted(tf.io.gfile.glob(pattern)):
        folder, _, name = path.removeprefix(f"{root}/").rstrip("/").partition("/")
        if folder in contents and name and not is_hidden(name):
            contents[folder].append(name)
    return contents


def _list_folder(folder: str) -> list[str]:
    return list_directory(folder) if is_directory(folder) else []


def _select_images(folder: str, entries: Sequence[str], suffixes: tuple[str, ...]) -> list[str]:
    """Selects entries by suffix. Raises InputError on an image of an unsupported format."""
    unsupported = [entry for entry in entries if entry.lower().endswith(_UNSUPPORTED)]
    if unsupported:
        count = "1 image has" if len(unsupported) == 1 else f"{len(unsupported):,} images have"
        raise InputError(
            f"{folder}: {count} an unsupported format, for example {unsupported[0]}. Convert to "
            "JPEG or PNG"
        )
    return [entry for entry in entries if entry.lower().endswith(suffixes)]


def _describe(entries: Sequence[str], suffixes: tuple[str, ...]) -> str:
    """Says what lies in a folder without images."""
    if not entries:
        return "is empty. Remove it or add images"
    examples = ", ".join(entries[:3]) + (", ..." if len(entries) > 3 else "")
    return f"holds no images but {examples} (looked for {', '.join(suffixes)} directly in it)"
