"""ReaL's labels of ImageNet's validation images (Beyer et al., "Are we done with ImageNet?")."""

import json
import posixpath
import re
from collections.abc import Iterable, Sequence

from an_jax.data.sources import open_tfds
from an_jax.data.tf_on_cpu import tf
from an_jax.errors import InputError, NotThereError

NUM_IMAGES = 50_000


def read_real_labels(data_dir: str) -> list[list[int]]:
    """The labels of each validation image, by its number from 1: `result[number - 1]`.

    They come from `DATA/imagenet-1k/real.json`, else from a tfds-prepared imagenet2012_real.

    Raises:
        NotThereError: neither is there.
        InputError: the file is not what it should be.
    """
    path = posixpath.join(data_dir, "imagenet-1k", "real.json")
    if not tf.io.gfile.exists(path):
        return _from_tfds(path, data_dir)
    try:
        with tf.io.gfile.GFile(path) as file:
            labels = json.load(file)
    except (ValueError, tf.errors.OpError) as error:
        raise InputError(f"{path} is damaged, no JSON: download it again") from error
    if not isinstance(labels, list) or len(labels) != NUM_IMAGES:
        count = len(labels) if isinstance(labels, list) else "no list of"
        raise InputError(f"{path} has {count} entries, not {NUM_IMAGES}: download it again")
    for number, entry in enumerate(labels, start=1):
        if not isinstance(entry, list) or not all(
            type(label) is int and 0 <= label < 1000 for label in entry
        ):
            raise InputError(f"{path}: entry {number} is no list of labels from 0 to 999")
    return labels


def labels_of(filenames: Iterable[str], labels: Sequence[Sequence[int]]) -> list[Sequence[int]]:
    """The label set of each file, by the number in its name, ILSVRC2012_val_00000001.JPEG.

    Raises:
        InputError: a name without such a number.
    """
    return [labels[_number(name) - 1] for name in filenames]


def _number(filename: str) -> int:
    match = re.search(r"ILSVRC2012_val_(\d{8})\b", filename)
    if not match or not 1 <= int(match[1]) <= NUM_IMAGES:
        raise InputError(
            f"imagenet-1k-reassessed needs the original file names: {filename!r} is none such as "
            "ILSVRC2012_val_00000001.JPEG"
        )
    return int(match[1])


def _from_tfds(path: str, data_dir: str) -> list[list[int]]:
    source = open_tfds("imagenet2012_real", "validation", data_dir)
    if source is None:
        raise NotThereError(
            f"imagenet-1k-reassessed needs {path}: download it from "
            "https://github.com/google-research/reassessed-imagenet, or prepare imagenet2012_real"
        )
    import tensorflow_datasets as tfds

    examples = source.builder.as_dataset(
        split=source.split,
        decoders=tfds.decode.PartialDecoding({"file_name": True, "real_label": True}),
    )
    labels: list[list[int]] = [[] for _ in range(NUM_IMAGES)]
    for example in examples.as_numpy_iterator():
        labels[_number(example["file_name"].decode()) - 1] = example["real_label"].tolist()
    return labels
