"""AlexNet's results on ImageNet-P, by which mFR and mT5D divide; its authors keep them in a table
(https://github.com/hendrycks/robustness, issue 49), which is not ours to copy."""

import json
import posixpath

from an_jax.data.sets.image_sets import PERTURBATIONS
from an_jax.data.tf_on_cpu import tf
from an_jax.errors import InputError

KEYS = ("flip_probability", "top5_distance")


def read_alexnet_p(data_dir: str) -> dict[str, dict[str, float]] | None:
    """{"flip_probability", "top5_distance"}, each perturbation -> AlexNet's value, as fractions,
    of `DATA/imagenet-p/alexnet.json`; None if there is no such file.

    Raises:
        InputError: the file is not of this form.
    """
    path = posixpath.join(data_dir, "imagenet-p", "alexnet.json")
    if not tf.io.gfile.exists(path):
        return None
    try:
        with tf.io.gfile.GFile(path) as file:
            content = json.load(file)
        return {key: {p: float(content[key][p]) for p in PERTURBATIONS} for key in KEYS}
    except (ValueError, KeyError, TypeError, tf.errors.OpError) as error:
        raise InputError(
            f"{path} does not hold {' and '.join(KEYS)}, each with a number for each of "
            f"{', '.join(PERTURBATIONS)}"
        ) from error
