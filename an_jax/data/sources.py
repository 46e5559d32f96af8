"""Where images come from: lists of files, images in memory, or data prepared by tfds.

A source has a fixed order. Its examples are {"image": encoded bytes, "label": int32,
"filename": string}; what is decoded, and how, is the pipeline's business. Directories are strings,
local or gs://.
"""

import csv
import dataclasses
import hashlib
import posixpath
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import numpy as np

from an_jax.data.tf_on_cpu import tf
from an_jax.errors import InputError

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png")
SHUFFLE_WINDOW = 8192  # encoded images: 1 GB of ImageNet's


@dataclasses.dataclass(frozen=True)
class ImageList:
    """Images that can be read in any order.

    Attributes:
        filenames: names relative to `root`, with "/".
        labels: int32 [n].
        root: directory of the files; unused when `encoded` is given.
        encoded: the files' contents, for images that lie in memory.
        kind: what an error says is expected.
    """

    filenames: Sequence[str]
    labels: np.ndarray
    root: str = ""
    encoded: Sequence[bytes] | None = None
    kind: ClassVar[str] = "image"

    def __len__(self) -> int:
        return len(self.filenames)

    @property
    def fingerprint(self) -> str:
        """Tells lists apart by place, names, labels, and contents where these lie in memory."""
        names = "\n".join([self.root, *self.filenames])
        digest = hashlib.sha256(names.encode() + self.labels.tobytes())
        for content in self.encoded or ():
            digest.update(content)
        return digest.hexdigest()

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

    def read_epoch(
        self, rng: np.random.Generator, batch_size: int, rows: slice, steps: range
    ) -> tf.data.Dataset:
        """Reads this process's rows of an epoch's batches, in random order.

        The order is repeated where the batches hold more images than there are.

        Args:
            rng: determines the order.
            batch_size: images in a batch of all processes together.
            rows: the part of each batch that is this process's.
            steps: which batches to read.
        """
        order = np.resize(rng.permutation(len(self)), (steps.stop, batch_size))
        return self.read(order[steps.start :, rows].ravel())

    def name(self, position: int) -> str:
        """What to call an image in an error: its path."""
        return self.name_of(self.filenames[position])

    def name_of(self, filename: str) -> str:
        """What to call the image of a file name in an error: its path."""
        return posixpath.join(self.root, filename)


@dataclasses.dataclass(frozen=True)
class TfdsSplit:
    """A split prepared by tensorflow-datasets, in its own order.

    Attributes:
        builder: a tfds builder with the features label, file_name, and an image or a video.
        split: name of the split.
        feature: name of the image or video.
        kind: what an error says is expected.
    """

    builder: object
    split: str
    feature: str = "image"
    kind: ClassVar[str] = "image"

    def __len__(self) -> int:
        return self.builder.info.splits[self.split].num_examples

    @property
    def fingerprint(self) -> str:
        """Tells prepared data sets apart by place, name, configuration, version and size."""
        return f"{self.builder.data_path}/{self.split}/{len(self)}"

    def read(self, indices: range) -> tf.data.Dataset:
        """The examples of a contiguous range, in order."""
        import tensorflow_datasets as tfds

        first, last = (
            (indices.start, indices.stop) if indices else (0, 1)
        )  # tfds reads no empty range
        in_order = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
        return self._read(range(first, last), in_order).take(len(indices))

    def read_shuffled(self, indices: range, seed: int) -> tf.data.Dataset:
        """The examples of a contiguous range in an order that is a function of the seed.

        Files are shuffled, read sixteen at a time, and their examples shuffled once more within a
        window: a record cannot be read by its number.
        """
        import tensorflow_datasets as tfds

        config = tfds.ReadConfig(
            shuffle_seed=seed, shuffle_reshuffle_each_iteration=False, try_autocache=False
        )
        dataset = self._read(indices, config, shuffle_files=True)
        return dataset.shuffle(SHUFFLE_WINDOW, seed=seed, reshuffle_each_iteration=False)

    def read_epoch(
        self, rng: np.random.Generator, batch_size: int, rows: slice, steps: range
    ) -> tf.data.Dataset:
        """Reads this process's rows of an epoch's batches, as `ImageList.read_epoch` does.

        Each process has a fixed part of the examples. Those of earlier steps are read and dropped.
        """
        first, last = (len(self) * row // batch_size for row in (rows.start, rows.stop))
        examples = self.read_shuffled(range(first, last), int(rng.integers(2**31))).repeat()
        b = rows.stop - rows.start
        return examples.skip(steps.start * b).take(len(steps) * b)

    def _read(self, indices: range, config, shuffle_files: bool = False) -> tf.data.Dataset:
        import tensorflow_datasets as tfds

        dataset = self.builder.as_dataset(
            split=tfds.core.ReadInstruction(
                self.split, from_=indices.start, to=indices.stop, unit="abs"
            ),
            shuffle_files=shuffle_files,
            decoders={"image": tfds.decode.SkipDecoding()} if self.feature == "image" else None,
            read_config=config,
        )
        return dataset.map(
            lambda example: {
                "image": example[self.feature],
                "label": tf.cast(example["label"], tf.int32),
                "filename": example["file_name"],
            }
        )

    def name(self, position: int) -> str:
        """What to call an image in an error: its file name and the data set."""
        (example,) = self.read(range(position, position + 1))
        return self.name_of(example["filename"].numpy().decode())

    def name_of(self, filename: str) -> str:
        """What to call the image of a file name in an error: that and the data set."""
        return f"{filename} of {self.builder.info.full_name}"


def open_tfds(name: str, split: str, data_dir: str, feature: str = "image") -> TfdsSplit | None:
    """A split of a data set that lies prepared in `data_dir`; None if it does not.

    Args:
        name: of the data set, with "/" and its configuration where it has some.
        split: of the data set.
        data_dir: where tfds keeps prepared data.
        feature: name of the image or video.

    Raises:
        InputError: it is there, but not whole, or without the split.
    """
    if not tf.io.gfile.isdir(posixpath.join(data_dir, name)):
        return None
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        raise InputError(
            f"{data_dir}/{name} is no whole data set: remove it, build it again"
        ) from error
    if split not in builder.info.splits:
        raise InputError(
            f"{data_dir}/{name} has no split {split!r} of version {builder.version}, the one that "
            f"is read: prepare it with `python -m an_jax.data.builders {name} "
            f"--manual_dir=ARCHIVES --data_dir={data_dir}`"
        )
    return TfdsSplit(builder, split, feature)


def open_class_folders(
    root: str, label_of: Mapping[str, int], suffixes: tuple[str, ...] = IMAGE_SUFFIXES
) -> ImageList:
    """Images in one folder a class, in the order of their names.

    Folders of some of the classes will do: labels do not depend on which are there.

    Args:
        root: directory of the folders.
        label_of: name of a folder -> label.
        suffixes: which files count, in lower case.

    Raises:
        InputError: a folder is none of the classes, or there are no images.
    """
    entries = list_directory(root)
    unknown = [e for e in entries if e not in label_of and is_directory(root, e)]
    if unknown:
        raise InputError(
            f"{root} has folders that are none of the {len(set(label_of.values()))} classes "
            f"(such as {next(iter(label_of))!r}): {', '.join(unknown[:5])}"
            + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else "")
        )
    folders = [entry for entry in entries if entry in label_of]
    with ThreadPoolExecutor(32) as pool:  # a listing on gs:// takes a tenth of a second
        contents = list(pool.map(lambda f: _files(posixpath.join(root, f), suffixes), folders))
    names = [f"{f}/{file}" for f, files in zip(folders, contents, strict=True) for file in files]
    _check_not_empty(names, root, suffixes)
    labels = np.array([label_of[name.split("/")[0]] for name in names], np.int32)
    return ImageList(names, labels, root)


def open_flat_folder(root: str, solution: str, class_ids: Sequence[str]) -> ImageList:
    """Images in one folder, labelled by ILSVRC's LOC_val_solution.csv.

    Raises:
        InputError: there are no images, or the file lacks one of them.
    """
    with tf.io.gfile.GFile(solution) as file:
        try:
            rows = csv.DictReader(file.read().splitlines())
            wnid_of = {row["ImageId"]: row["PredictionString"].split()[0] for row in rows}
        except (KeyError, IndexError, AttributeError) as error:
            raise InputError(f"{solution} lacks ImageId or PredictionString") from error
    names = _files(root, IMAGE_SUFFIXES)
    _check_not_empty(names, root, IMAGE_SUFFIXES)
    label_of = {class_id: label for label, class_id in enumerate(class_ids)}
    labels = [label_of.get(wnid_of.get(posixpath.splitext(name)[0]), -1) for name in names]
    if -1 in labels:
        others = labels.count(-1) - 1
        raise InputError(
            f"{solution} has no class for {names[labels.index(-1)]} and {others} others"
        )
    return ImageList(names, np.array(labels, np.int32), root)


def list_directory(path: str) -> list[str]:
    """Names of what is in a directory, sorted."""
    return sorted(name.rstrip("/") for name in tf.io.gfile.listdir(path))


def is_directory(*parts: str) -> bool:
    """Whether there is a directory at the joined path."""
    return tf.io.gfile.isdir(posixpath.join(*parts))


def _files(folder: str, suffixes: tuple[str, ...]) -> list[str]:
    names = list_directory(folder) if is_directory(folder) else []
    return [n for n in names if n.lower().endswith(suffixes) and not n.startswith(".")]


def _check_not_empty(names: list[str], root: str, suffixes: tuple[str, ...]) -> None:
    if not names:
        raise InputError(f"{root} holds no images (looked for {', '.join(suffixes)})")
