"""Where images come from: lists of files, images in memory, or data prepared by tfds.

A source has a fixed order. Its examples are {"image": encoded bytes, "label": int32,
"filename": string}; what is decoded, and how, is the pipeline's business.
"""

import csv
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from an_jax.data.tf_on_cpu import tf
from an_jax.errors import InputError

_SUFFIXES = {".jpeg", ".jpg", ".png"}


@dataclasses.dataclass(frozen=True)
class ImageList:
    """Images that can be read in any order.

    Attributes:
        filenames: names relative to `root`, with "/".
        labels: int32 [n].
        root: directory of the files; unused when `encoded` is given.
        encoded: the files' contents, for images that lie in memory.
    """

    filenames: Sequence[str]
    labels: np.ndarray
    root: str = ""
    encoded: Sequence[bytes] | None = None

    def __len__(self) -> int:
        return len(self.filenames)

    def read(self, indices: Sequence[int] | range | np.ndarray) -> tf.data.Dataset:
        """The examples at `indices`, in that order."""
        indices = np.asarray(indices, np.int64)
        names = np.asarray(self.filenames)[indices] if len(indices) else np.zeros(0, str)
        columns = {"filename": names, "label": self.labels[indices]}
        if self.encoded is not None:
            columns["image"] = np.array(self.encoded, object)[indices]
            return tf.data.Dataset.from_tensor_slices(columns)

        def read_file(example):
            path = tf.strings.join([self.root, example["filename"]], separator="/")
            return {**example, "image": tf.io.read_file(path)}

        return tf.data.Dataset.from_tensor_slices(columns).map(
            read_file, num_parallel_calls=tf.data.AUTOTUNE
        )

    def name(self, position: int) -> str:
        """What to call an image in an error: its path."""
        return os.path.join(self.root, self.filenames[position])


@dataclasses.dataclass(frozen=True)
class TfdsSplit:
    """A split prepared by tensorflow-datasets, in its own order.

    Attributes:
        builder: a tfds builder with the features image, label and file_name.
        split: name of the split.
    """

    builder: object
    split: str

    def __len__(self) -> int:
        return self.builder.info.splits[self.split].num_examples

    def read(self, indices: range) -> tf.data.Dataset:
        """The examples of a contiguous range, in order."""
        import tensorflow_datasets as tfds

        first, last = (
            (indices.start, indices.stop) if indices else (0, 1)
        )  # tfds reads no empty range
        part = tfds.core.ReadInstruction(self.split, from_=first, to=last, unit="abs")
        dataset = self.builder.as_dataset(
            split=part,
            shuffle_files=False,
            decoders={"image": tfds.decode.SkipDecoding()},
            read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
        )
        return dataset.take(len(indices)).map(
            lambda example: {
                "image": example["image"],
                "label": tf.cast(example["label"], tf.int32),
                "filename": example["file_name"],
            }
        )

    def name(self, position: int) -> str:
        """What to call an image in an error: its file name and the data set."""
        (example,) = self.read(range(position, position + 1))
        return f"{example['filename'].numpy().decode()} of {self.builder.name}"


def open_tfds(name: str, split: str, data_dir: Path) -> TfdsSplit | None:
    """A split of a data set that lies prepared in `data_dir`; None if it does not.

    Raises:
        InputError: it is there, but without the split.
    """
    if not (data_dir / name).is_dir():
        return None
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=str(data_dir))
    if split not in builder.info.splits:
        raise InputError(
            f"{data_dir / name} has no split {split!r}; prepare it with `tfds build {name}`"
        )
    return TfdsSplit(builder, split)


def open_class_folders(root: Path, class_ids: Sequence[str]) -> ImageList:
    """Images in one folder a class; a label is the position of the folder's name in `class_ids`.

    Folders of some of the classes will do: labels do not depend on which are there.

    Raises:
        InputError: a folder is none of the classes, or there are no images.
    """
    label_of = {name: label for label, name in enumerate(class_ids)}
    folders = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    unknown = [name for name in folders if name not in label_of]
    if unknown:
        raise InputError(
            f"{root} has folders that are none of the {len(class_ids)} classes "
            f"(such as {class_ids[0]!r}): {', '.join(unknown[:5])}"
            + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else "")
        )
    names = [f"{f}/{image}" for f in folders for image in _images(root / f)]
    _check_not_empty(names, root)
    labels = np.array([label_of[name.split("/")[0]] for name in names], np.int32)
    return ImageList(names, labels, str(root))


def open_flat_folder(root: Path, solution: Path, class_ids: Sequence[str]) -> ImageList:
    """Images in one folder, labelled by ILSVRC's LOC_val_solution.csv.

    Raises:
        InputError: there are no images, or the file lacks one of them.
    """
    with solution.open(newline="") as file:
        try:
            rows = csv.DictReader(file)
            wnid_of = {row["ImageId"]: row["PredictionString"].split()[0] for row in rows}
        except (KeyError, IndexError, AttributeError) as error:
            raise InputError(f"{solution} lacks ImageId or PredictionString") from error
    names = _images(root)
    _check_not_empty(names, root)
    missing = [name for name in names if wnid_of.get(Path(name).stem) not in class_ids]
    if missing:
        raise InputError(f"{solution} has no class for {missing[0]} and {len(missing) - 1} others")
    labels = [class_ids.index(wnid_of[Path(name).stem]) for name in names]
    return ImageList(names, np.array(labels, np.int32), str(root))


def _check_not_empty(names: list[str], root: Path) -> None:
    if not names:
        raise InputError(f"{root} holds no images (looked for {', '.join(sorted(_SUFFIXES))})")


def _images(folder: Path) -> list[str]:
    names = (entry.name for entry in os.scandir(folder) if entry.is_file())
    return sorted(name for name in names if Path(name).suffix.lower() in _SUFFIXES)
