"""ReaL labels of ImageNet's validation images (Beyer et al., "Are we done with ImageNet?")."""

import json
import posixpath
import re
from collections.abc import Iterable, Sequence

from an_jax.data.prepared import open_tfds
from an_jax.data.sources import TfdsSplit
from an_jax.data.text_files import read_text
from an_jax.data.tf_on_cpu import explain, tf
from an_jax.errors import InputError, NotThereError, file_errors

NUM_IMAGES = 50_000
REAL_JSON = "imagenet-1k/real.json"  # relative to the data directory


def find_real_labels(data_dir: str) -> str | TfdsSplit:
    """Finds `DATA/imagenet-1k/real.json`, or else a tfds-prepared imagenet2012_real.

    Returns:
        The path of the file, or the split.

    Raises:
        NotThereError: neither is there.
        InputError: the prepared data set is incomplete.
    """
    path = posixpath.join(data_dir, REAL_JSON)
    if tf.io.gfile.exists(path):
        return path
    split = open_tfds("imagenet2012_real", "validation", data_dir)
    if split is None:
        raise NotThereError(
            f"imagenet-1k-reassessed needs {path}: download it from "
            "https://github.com/google-research/reassessed-imagenet, or prepare imagenet2012_real"
        )
    return split


def read_real_labels(data_dir: str) -> list[list[int]]:
    """Reads the label set of each validation image; image number i has `result[i - 1]`.

    Raises:
        NotThereError: there are no labels in the data directory.
        InputError: the labels are damaged or cannot be read.
    """
    try:
        labels_source = find_real_labels(data_dir)
        if isinstance(labels_source, str):
            return _read_json(labels_source)
        return _read_tfds(labels_source)
    except file_errors() as error:
        reason = explain(error)
        raise InputError(f"ReaL's labels in {data_dir} cannot be read: {reason}") from error


def match_labels(filenames: Iterable[str], labels: Sequence[Sequence[int]]) -> list[Sequence[int]]:
    """Returns the label set of each file, by the number in a name ILSVRC2012_val_00000001.JPEG.

    Hugging Face's archive has the class behind it: ILSVRC2012_val_00000001_n01751748.JPEG.

    Raises:
        InputError: a name has no such number.
    """
    return [labels[_image_number(name) - 1] for name in filenames]


def _image_number(filename: str) -> int:
    match = re.search(r"ILSVRC2012_val_(\d{8})(?!\d)", filename)
    if not match or not 1 <= int(match[1]) <= NUM_IMAGES:
        raise InputError(
            f"imagenet-1k-reassessed needs the original file names, such as "
            f"ILSVRC2012_val_00000001.JPEG, but an image is named {filename!r}"
        )
    return int(match[1])


def _read_json(path: str) -> list[list[int]]:
    try:
        labels = json.loads(read_text(path))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: download it again") from error
    if not isinstance(labels, list):
        raise InputError(f"{path} holds no list: download it again")
    if len(labels) != NUM_IMAGES:
        raise InputError(f"{path} has {len(labels)} entries, not {NUM_IMAGES}: download it again")
    for number, entry in enumerate(labels, start=1):
        if not _is_label_set(entry):
            raise InputError(
                f"{path}: entry {number} is not a list of labels from 0 to 999: download it again"
            )
    return labels


def _is_label_set(entry: object) -> bool:
    return isinstance(entry, list) and all(type(x) is int and 0 <= x < 1000 for x in entry)


def _read_tfds(split: TfdsSplit) -> list[list[int]]:
    import tensorflow_datasets as tfds

    examples = split.builder.as_dataset(
        split=split.split,
        decoders=tfds.decode.PartialDecoding({"file_name": True, "real_label": True}),
    )
    labels: list[list[int]] = [[] for _ in range(NUM_IMAGES)]
    for example in examples.as_numpy_iterator():
        number = _image_number(example["file_name"].decode())
        labels[number - 1] = example["real_label"].tolist()
    return labels
