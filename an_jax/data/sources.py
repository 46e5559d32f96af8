"""Sources of images: lists of files, images in memory, and splits prepared by tfds.

A source has a fixed order. It yields examples {"image": encoded bytes, "label": int32,
"filename": string}; the pipelines decode them. Directories are strings, local or gs://.
"""

import dataclasses
import functools
import hashlib
import posixpath
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from an_jax.data.tf_on_cpu import tf, without_autograph

if TYPE_CHECKING:  # importing it takes seconds
    import tensorflow_datasets as tfds

SHUFFLE_WINDOW = 8192  # examples; 1 GB of encoded ImageNet images


@dataclasses.dataclass(frozen=True)
class ImageList:
    """Images that can be read in any order.

    Attributes:
        filenames: names relative to `root`, with "/".
        labels: int32 [n].
        root: directory of the files; unused if `encoded` is given.
        encoded: the files' contents, for images in memory.
        kind: what error messages call an example.
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
        """Hash of directory, names, labels and, for images in memory, contents."""
        names = "\n".join([self.root, *self.filenames])
        digest = hashlib.sha256(names.encode() + self.labels.tobytes())
        for content in self.encoded or ():
            digest.update(content)
        return digest.hexdigest()

    def read(self, indices: Sequence[int] | range | np.ndarray) -> tf.data.Dataset:
        """Returns the examples at `indices`, in that order."""
        names, labels, encoded = self._columns  # a million names take seconds to become tensors

        @without_autograph
        def read_example(index: tf.Tensor) -> dict[str, tf.Tensor]:
            name = names[index]
            if encoded is None:
                image = tf.io.read_file(tf.strings.join([self.root, name], separator="/"))
            else:
                image = encoded[index]
            return {"filename": name, "label": labels[index], "image": image}

        dataset = tf.data.Dataset.from_tensor_slices(np.asarray(indices, np.int64))
        return dataset.map(read_example, num_parallel_calls=tf.data.AUTOTUNE)

    @functools.cached_property
    def _columns(self) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
        """Names, labels and contents of all images."""
        names = tf.constant(np.array(self.filenames, object), tf.string)
        encoded = (
            None if self.encoded is None else tf.constant(np.array(self.encoded, object), tf.string)
        )
        return names, tf.constant(self.labels), encoded

    def read_epoch(
        self, rng: np.random.Generator, rows: np.ndarray, share: slice, steps: range
    ) -> tf.data.Dataset:
        """Reads this process's rows of an epoch's batches, in random order.

        The order is repeated where the batches hold more images than there are.

        Args:
            rng: determines the order.
            rows: a permutation of the rows of a batch.
            share: this process's slice of `rows`.
            steps: which batches to read.
        """
        order = np.resize(rng.permutation(len(self)), (steps.stop, len(rows)))
        return self.read(order[steps.start :, rows[share]].ravel())

    def name(self, position: int) -> str:
        """The path of an image, for error messages."""
        return self.name_of(self.filenames[position])

    def name_of(self, filename: str) -> str:
        """The path of the image with this file name, for error messages."""
        return posixpath.join(self.root, filename)


@dataclasses.dataclass(frozen=True)
class TfdsSplit:
    """A split prepared by tensorflow-datasets, in its own order.

    Attributes:
        builder: a tfds builder with the features `label`, `file_name` and `feature`.
        split: name of the split.
        feature: name of the image or video feature.
        kind: what error messages call an example.
    """

    builder: "tfds.core.DatasetBuilder"
    split: str
    feature: str = "image"
    kind: ClassVar[str] = "image"

    def __len__(self) -> int:
        return self.builder.info.splits[self.split].num_examples

    @property
    def fingerprint(self) -> str:
        """Directory, name, configuration, version, split and size of the prepared data set."""
        return f"{self.builder.data_path}/{self.split}/{len(self)}"

    def read(self, indices: range) -> tf.data.Dataset:
        """Returns the examples of a contiguous range, in order."""
        import tensorflow_datasets as tfds

        in_order = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
        not_empty = indices or range(1)  # tfds refuses an empty range
        return self._read(not_empty, in_order).take(len(indices))

    def read_epoch(
        self, rng: np.random.Generator, rows: np.ndarray, share: slice, steps: range
    ) -> tf.data.Dataset:
        """Reads this process's rows of an epoch's batches, as `ImageList.read_epoch` does.

        Records cannot be read by position. Instead, files are shuffled and read sixteen at a time,
        and their examples are shuffled within a window. Each process has a fixed part of the
        examples. Those of earlier steps are read and dropped.
        """
        import tensorflow_datasets as tfds

        first, last = (len(self) * row // len(rows) for row in (share.start, share.stop))
        if first == last:  # fewer images than rows; tfds refuses an empty range
            first, last = 0, len(self)
        seed = int(rng.integers(2**31))
        config = tfds.ReadConfig(
            shuffle_seed=seed, shuffle_reshuffle_each_iteration=False, try_autocache=False
        )
        by_file = self._read(range(first, last), config, shuffle_files=True)
        shuffled = by_file.shuffle(SHUFFLE_WINDOW, seed=seed, reshuffle_each_iteration=False)
        # Repeating `shuffled` would read a whole window to fill up the last batch.
        examples = shuffled.concatenate(by_file.repeat())
        b = share.stop - share.start
        return examples.skip(steps.start * b).take(len(steps) * b)

    def _read(
        self, indices: range, config: "tfds.ReadConfig", shuffle_files: bool = False
    ) -> tf.data.Dataset:
        import tensorflow_datasets as tfds

        dataset = self.builder.as_dataset(
            split=tfds.core.ReadInstruction(
                self.split, from_=indices.start, to=indices.stop, unit="abs"
            ),
            shuffle_files=shuffle_files,
            decoders={"image": tfds.decode.SkipDecoding()} if self.feature == "image" else None,
            read_config=config,
        )

        @without_autograph
        def rename(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            return {
                "image": example[self.feature],
                "label": tf.cast(example["label"], tf.int32),
                "filename": example["file_name"],
            }

        return dataset.map(rename)

    def name(self, position: int) -> str:
        """The file name and data set of an image, for error messages."""
        (example,) = self.read(range(position, position + 1))
        return self.name_of(example["filename"].numpy().decode())

    def name_of(self, filename: str) -> str:
        """The file name and the data set of an image, for error messages."""
        return f"{filename} of {self.builder.info.full_name}"
