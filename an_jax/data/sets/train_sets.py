"""A table of the training sets: how to open their training and validation images."""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import os
import posixpath
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from an_jax import parallel
from an_jax.data.folders import (
    check_data_directory,
    has_folders,
    has_labels_in_names,
    is_directory,
    list_directory,
    open_class_folders,
    open_flat_folder,
)
from an_jax.data.image_files import check_files
from an_jax.data.prepared import check_prepared, open_tfds
from an_jax.data.sets import digits
from an_jax.data.sets.class_index import imagenet_wnids
from an_jax.data.sets.image_sets import IMAGE_SETS
from an_jax.data.sets.opening import Source, open_image_set
from an_jax.data.sets.real_labels import match_labels, read_real_labels
from an_jax.data.sources import ImageList, TfdsSplit
from an_jax.data.text_files import compose
from an_jax.data.tf_on_cpu import explain
from an_jax.errors import InputError, NotThereError, file_errors

IMAGENET_SIZE = 1_281_167


@dataclasses.dataclass(frozen=True)
class TrainSet:
    """Images to train on.

    Attributes:
        source: the training images.
        val_source: the images to evaluate after each epoch.
        num_classes: number of labels.
        classes: a name for each label; None if the labels are ImageNet's.
        real_labels: result of `read_real_labels`; None without ReaL's labels.
    """

    source: ImageList | TfdsSplit
    val_source: Source
    num_classes: int
    classes: Sequence[str] | None = None
    real_labels: Sequence[Sequence[int]] | None = None

    @property
    def fingerprints(self) -> dict[str, str]:
        """Identifies the parts: name -> a text that differs between different sets."""
        real_labels = json.dumps(self.real_labels).encode()
        return {
            "training images": self.source.fingerprint,
            "validation images": self.val_source.fingerprint,
            "ReaL labels": hashlib.sha256(real_labels).hexdigest(),
        }


def _open_digits(data_dir: str) -> TrainSet:
    return TrainSet(digits.open_digits("train"), digits.open_digits("test"), 10)


_TRAIN = (
    "imagenet-1k/train",
    "imagenet-1k/Data/CLS-LOC/train",
    "imagenet-1k/ILSVRC/Data/CLS-LOC/train",
    "ILSVRC/Data/CLS-LOC/train",
    "Data/CLS-LOC/train",
    "train",
)


def _open_imagenet(data_dir: str) -> TrainSet:
    """Opens ImageNet-1k: class folders named by wnid, or imagenet2012 as tfds prepares it."""
    source: ImageList | TfdsSplit | None
    folder = next((folder for folder in _TRAIN if is_directory(data_dir, folder)), None)
    if folder is not None:
        root = posixpath.join(data_dir, folder)
        if has_folders(root) or not has_labels_in_names(root):
            label_of = {wnid: label for label, wnid in enumerate(imagenet_wnids())}
            source = open_class_folders(root, label_of)
        else:
            source = open_flat_folder(root, None, imagenet_wnids())
    else:
        source = open_tfds("imagenet2012", "train", data_dir)
    if source is None:
        raise NotThereError(
            f"no training images in {data_dir}: expected class folders in {_TRAIN[0]}/ or a "
            "tfds-prepared imagenet2012/"
        )
    val_source = open_image_set("imagenet-1k", data_dir, allow_partial=True)
    for part, found, expected in (
        ("training", len(source), IMAGENET_SIZE),
        ("validation", len(val_source), IMAGE_SETS["imagenet-1k"].num_images),
    ):
        if found != expected:
            print(f"note: {found} of the {expected} {part} images of ImageNet")
    real_labels = None
    with contextlib.suppress(NotThereError):
        real_labels = read_real_labels(data_dir)
    if real_labels is not None:
        try:
            match_labels([val_source.name(0)], real_labels)
        except InputError as error:
            print(f"note: ReaL accuracy is not measured: {error}")
            real_labels = None
    return TrainSet(source, val_source, 1000, real_labels=real_labels)


def _open_folder(data_dir: str) -> TrainSet:
    """Opens the user's class folders: DATA/train/CLASS/ and DATA/val/CLASS/."""
    for part in ("train", "val"):
        if not is_directory(data_dir, part):
            raise NotThereError(
                f"no {part}/ in {data_dir}: expected DATA/train/CLASS/IMAGE and "
                "DATA/val/CLASS/IMAGE with the same classes"
            )
    root = posixpath.join(data_dir, "train")
    entries = list_directory(root)
    with ThreadPoolExecutor(32) as pool:  # a question to a bucket takes 0.1 seconds
        are_folders = pool.map(functools.partial(is_directory, root), entries)
    folders = list(itertools.compress(entries, are_folders))
    classes = sorted({compose(name) for name in folders})
    if len(classes) < len(folders):
        raise InputError(
            f"{root}: two class folders have the same name but for how Unicode composes its "
            "letters. Merge them"
        )
    label_of = {name: label for label, name in enumerate(classes)}
    if len(classes) < 2:
        raise InputError(f"{root} has {len(classes)} class folder(s); training needs at least 2")
    return TrainSet(
        open_class_folders(root, label_of),
        open_class_folders(posixpath.join(data_dir, "val"), label_of),
        len(classes),
        classes,
    )


TRAIN_SETS: dict[str, Callable[[str], TrainSet]] = {
    "imagenet": _open_imagenet,
    "folder": _open_folder,
    "digits": _open_digits,
}


def open_train_set(name: str, data_dir: str) -> TrainSet:
    """Opens a training set. Every process calls this; process 0 lists the files for all.

    Args:
        name: one of TRAIN_SETS.
        data_dir: directory of the images; may be gs://. "digits" needs none.

    Raises:
        InputError: on every process, if the name is unknown, the directory does not hold the
            images, a validation image cannot be decoded, or a prepared data set is damaged.
    """
    train_set = parallel.from_main_process(functools.partial(_open, name, data_dir))
    with parallel.failing_together(), _explaining_errors(name, data_dir):
        if isinstance(train_set.val_source, ImageList):
            check_files(train_set.val_source)
        for source in (train_set.source, train_set.val_source):
            if isinstance(source, TfdsSplit):
                check_prepared(source)
    return train_set


def _open(name: str, data_dir: str) -> TrainSet:
    if name not in TRAIN_SETS:
        raise InputError(f"unknown dataset {name!r}; choose one of {', '.join(TRAIN_SETS)}")
    data_dir = os.path.expanduser(data_dir).rstrip("/")
    if name != "digits":
        if not data_dir:
            raise InputError(
                "no data directory given: set --config.data_dir=DATA to the directory of the images"
            )
        check_data_directory(data_dir)
    with _explaining_errors(name, data_dir):
        return TRAIN_SETS[name](data_dir)


@contextlib.contextmanager
def _explaining_errors(name: str, data_dir: str) -> Iterator[None]:
    try:
        yield
    except file_errors() as error:
        raise InputError(f"{name} in {data_dir} cannot be read: {explain(error)}") from error
