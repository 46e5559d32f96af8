"""AlexNet's results on ImageNet-P, the denominators of mFR and mT5D.

They are in a table of the benchmark's authors (https://github.com/hendrycks/robustness, issue 49),
which is not ours to copy: the user provides the file.
"""

import json
import posixpath

from an_jax.data.sets.image_sets import PERTURBATIONS
from an_jax.data.text_files import read_text
from an_jax.data.tf_on_cpu import explain, tf
from an_jax.errors import InputError, file_errors

KEYS = ("flip_probability", "top5_distance")


def read_alexnet_p(data_dir: str) -> dict[str, dict[str, float]] | None:
    """Reads AlexNet's results from `DATA/imagenet-p/alexnet.json`.

    Returns:
        {"flip_probability": ..., "top5_distance": ...}, each a dict perturbation -> fraction; None
        if there is no such file.

    Raises:
        InputError: the file has another form or cannot be read.
    """
    path = posixpath.join(data_dir, "imagenet-p", "alexnet.json")
    try:
        if not tf.io.gfile.exists(path):
            return None
        content = json.loads(read_text(path))
        return {key: {p: float(content[key][p]) for p in PERTURBATIONS} for key in KEYS}
    except file_errors() as error:
        raise InputError(f"{path} cannot be read: {explain(error)}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} does not hold {' and '.join(KEYS)}, each with a number for each of "
            f"{', '.join(PERTURBATIONS)}"
        ) from error
