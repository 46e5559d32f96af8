"""Opening of data sets that tensorflow-datasets has prepared."""

import copyreg
import os
import posixpath
from collections.abc import Callable

from an_jax import parallel
from an_jax.data.folders import is_directory, list_directory
from an_jax.data.images.decoding import decode_rgb
from an_jax.data.sources import TfdsSplit
from an_jax.errors import InputError, file_errors, one_line


def open_tfds(name: str, split: str, data_dir: str, feature: str = "image") -> TfdsSplit | None:
    """Opens a split that tfds prepared in `data_dir`; returns None if the data set is not there.

    If tfds's current version is not there, opens the newest of the versions that tfds supports.

    Args:
        name: name of the data set, with "/" and its configuration if it has some.
        split: name of the split.
        data_dir: data directory of tfds.
        feature: name of the image or video feature.

    Raises:
        InputError: the data set is incomplete, lacks the split, or has no supported version.
    """
    directory = posixpath.join(data_dir, name)
    if not is_directory(directory):
        return None
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        raise InputError(
            f"{data_dir}/{name} is an incomplete data set: remove it and prepare it again"
        ) from error
    except file_errors():
        raise
    except Exception as error:  # the parser of dataset_info.json raises many types
        reason = one_line(error).rpartition('}": ')[2][:200].rstrip(".")  # without tfds's preface
        raise InputError(
            f"{data_dir}/{name} is damaged: {reason}. Remove it and prepare it again"
        ) from error
    prepared = [v for v in list_directory(directory) if tfds.core.Version.is_valid(v)]
    if prepared and str(builder.version) not in prepared:
        supported = [v for v in builder.versions if str(v) in prepared]
        if not supported:
            known = ", ".join(map(str, builder.versions))
            raise InputError(
                f"{directory} holds version {', '.join(prepared)}, but tfds supports {known}. "
                "Prepare it again"
            )
        builder = tfds.builder(name, data_dir=data_dir, version=str(max(supported)))
    if split not in builder.info.splits:
        raise InputError(
            f"{data_dir}/{name} has no split {split!r} of version {builder.version}. Prepare it "
            f"with `python -m an_jax.data.builders {name} --manual_dir=ARCHIVES "
            f"--data_dir={data_dir}`"
        )
    return TfdsSplit(builder, split, feature)


def check_prepared(split: TfdsSplit) -> None:
    """Checks a split without reading all of it: its files, and this process's first image.

    Raises:
        InputError: a file is missing.
        tf.errors.OpError: the image cannot be read or decoded.
    """
    directory = os.fspath(split.builder.data_path)
    expected = split.builder.info.splits[split.split].filenames
    missing = sorted({*expected} - {*list_directory(directory)})
    if missing:
        raise InputError(
            f"{directory} lacks {len(missing)} of its files, for example {missing[0]}: copy them, "
            "or prepare it again"
        )
    for example in split.read(parallel.local_range(len(split))[:1]):
        decode_rgb(example["image"])


def _reopen(name: str, split: str, data_dir: str, feature: str) -> TfdsSplit:
    """Opens a split that another process has opened. Raises InputError if it is not here."""
    opened = open_tfds(name, split, data_dir, feature)
    if opened is None:
        raise InputError(f"no {name} in {data_dir}: all processes must have the same data")
    return opened


def _reduce(split: TfdsSplit) -> tuple[Callable[..., TfdsSplit], tuple[str, ...]]:
    name = split.builder.info.full_name  # NAME/VERSION or NAME/CONFIGURATION/VERSION
    data_dir = os.fspath(split.builder.data_path.parents[name.count("/")])
    return _reopen, (posixpath.dirname(name), split.split, data_dir, split.feature)


copyreg.pickle(TfdsSplit, _reduce)  # for `parallel.from_main_process`
