"""Shared by the builders: reads class folders from archives that the user has downloaded."""

import io
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

import tensorflow_datasets as tfds
from etils import epath

from an_jax.data.folders import is_hidden
from an_jax.data.sets.class_index import imagenet_wnids
from an_jax.errors import InputError
from an_jax.files import find_entries

_SUFFIXES = {"image": (".jpeg", ".jpg", ".png"), "video": (".mp4",)}


def features(**file: tfds.features.FeatureConnector) -> tfds.features.FeaturesDict:
    """Returns the features of an example: a file, its label of the 1000, its name <wnid>/<file>."""
    label = tfds.features.ClassLabel(names=imagenet_wnids())
    return tfds.features.FeaturesDict({**file, "label": label, "file_name": tfds.features.Text()})


def find_archive(manual_dir: epath.Path, names: Sequence[str], page: str) -> epath.Path:
    """Returns the path of the first of `names` that is in `manual_dir`.

    Raises:
        InputError: none of them is there.
    """
    for name in names:
        if (manual_dir / name).exists():
            return manual_dir / name
    raise InputError(f"no {' or '.join(names)} in {manual_dir}: download it from {page}")


def generate_examples(
    kind: str, source: epath.Path, folder: str, dl_manager: tfds.download.DownloadManager
) -> Iterator[tuple[str, dict]]:
    """Yields keys and examples of the files <folder>/<wnid>/<file>, with their bytes unchanged.

    Args:
        kind: "image" or "video": selects files by suffix and names their feature.
        source: a tar archive, which is not unpacked, or the unpacked folder.
        folder: directory of the class folders; in an archive it may be inside other directories.
        dl_manager: download manager of tfds, which reads archives.

    Raises:
        InputError: a class folder is not one of ImageNet's classes, or there are no files.
    """
    files = _read_folder(source) if source.is_dir() else dl_manager.iter_archive(source)
    wnids = frozenset(imagenet_wnids())
    is_empty = True
    for path, file in files:
        path = PurePosixPath(path)
        if not path.match(f"{folder}/*/*") or path.suffix.lower() not in _SUFFIXES[kind]:
            continue
        if any(map(is_hidden, path.parts)):
            continue
        wnid = path.parent.name
        if wnid not in wnids:
            raise InputError(f"{source}: the folder of {path} is none of ImageNet's 1000 classes")
        is_empty = False
        name = f"{wnid}/{path.name}"
        yield name, {kind: file.read(), "label": wnid, "file_name": name}
    if is_empty:
        raise InputError(f"{source} has no {kind}s in {folder}/<wnid>/: is it the right archive?")


def _read_folder(root: epath.Path) -> Iterator[tuple[str, io.BytesIO]]:
    for folder in find_entries(root, "*"):
        for path in filter(epath.Path.is_file, find_entries(folder, "*")):
            yield path.relative_to(root.parent).as_posix(), io.BytesIO(path.read_bytes())
