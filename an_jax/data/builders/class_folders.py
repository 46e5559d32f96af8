"""What the builders share: files in class folders, in archives that the user has downloaded."""

import io
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

import tensorflow_datasets as tfds
from etils import epath

from an_jax.data.sets.class_index import imagenet_wnids
from an_jax.errors import InputError

_SUFFIXES = {"image": (".jpeg", ".jpg", ".png"), "video": (".mp4",)}


def features(**file: tfds.features.FeatureConnector) -> tfds.features.FeaturesDict:
    """A file, its class of the 1000, and its name, `<wnid>/<file>`."""
    label = tfds.features.ClassLabel(names=imagenet_wnids())
    return tfds.features.FeaturesDict({**file, "label": label, "file_name": tfds.features.Text()})


def find(manual_dir: epath.Path, names: Sequence[str], page: str) -> epath.Path:
    """The first of `names` that lies in `manual_dir`.

    Raises:
        InputError: none does.
    """
    for name in names:
        if (manual_dir / name).exists():
            return manual_dir / name
    raise InputError(f"no {' or '.join(names)} in {manual_dir}: get it from {page}")


def examples(
    kind: str, source: epath.Path, folder: str, dl_manager: tfds.download.DownloadManager
) -> Iterator[tuple[str, dict]]:
    """Keys and examples from the files `<folder>/<wnid>/<file>`, their bytes as they are.

    Args:
        kind: "image" or "video": which files to take, and the name of their feature.
        source: a tar, which is read but not unpacked, or the unpacked folder itself.
        folder: what is above the class folders; in a tar it may lie in other folders.
        dl_manager: tfds's.

    Raises:
        InputError: a class folder is none of ImageNet's, or there is no such file.
    """
    files = _walk(source) if source.is_dir() else dl_manager.iter_archive(source)
    wnids = frozenset(imagenet_wnids())
    empty = True
    for path, file in files:
        path = PurePosixPath(path)
        if not path.match(f"{folder}/*/*") or path.suffix.lower() not in _SUFFIXES[kind]:
            continue
        wnid = path.parent.name
        if wnid not in wnids:
            raise InputError(f"{source}: the folder of {path} is none of ImageNet's 1000 classes")
        empty = False
        name = f"{wnid}/{path.name}"
        yield name, {kind: file.read(), "label": wnid, "file_name": name}
    if empty:
        raise InputError(f"{source} has no {kind}s in {folder}/<wnid>/: is it the right one?")


def _walk(root: epath.Path) -> Iterator[tuple[str, io.BytesIO]]:
    for path in sorted(root.glob("*/*")):
        if path.is_file() and not path.name.startswith("."):
            yield path.relative_to(root.parent).as_posix(), io.BytesIO(path.read_bytes())
