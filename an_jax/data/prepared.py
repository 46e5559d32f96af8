"""Opening of data sets that tensorflow-datasets has prepared."""

import posixpath

from an_jax.data.sources import TfdsSplit
from an_jax.data.tf_on_cpu import tf
from an_jax.errors import InputError


def open_tfds(name: str, split: str, data_dir: str, feature: str = "image") -> TfdsSplit | None:
    """Opens a split that tfds prepared in `data_dir`; returns None if the data set is not there.

    Args:
        name: name of the data set, with "/" and its configuration if it has some.
        split: name of the split.
        data_dir: data directory of tfds.
        feature: name of the image or video feature.

    Raises:
        InputError: the data set is incomplete or lacks the split.
    """
    if not tf.io.gfile.isdir(posixpath.join(data_dir, name)):
        return None
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        raise InputError(
            f"{data_dir}/{name} is an incomplete data set: remove it and prepare it again"
        ) from error
    if split not in builder.info.splits:
        raise InputError(
            f"{data_dir}/{name} has no split {split!r} of version {builder.version}. Prepare it "
            f"with `python -m an_jax.data.builders {name} --manual_dir=ARCHIVES "
            f"--data_dir={data_dir}`"
        )
    return TfdsSplit(builder, split, feature)
