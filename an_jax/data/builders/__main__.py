"""`tfds build` with the builders of ImageNet-O, -C and -P: `python -m an_jax.data.builders --help`.

Takes the options of `tfds build`. Unlike tfds 4.9.10's own command, it starts without Apache Beam
and mlcroissant:

    python -m an_jax.data.builders imagenet_o imagenet_c/fog_3 --manual_dir=M --data_dir=D
"""

import dataclasses
import sys

from absl import app
from tensorflow_datasets.scripts.cli import build, cli_utils

# Importing a builder registers its name.
from an_jax.data.builders.imagenet_c import imagenet_c_dataset_builder  # noqa: F401
from an_jax.data.builders.imagenet_o import imagenet_o_dataset_builder  # noqa: F401
from an_jax.data.builders.imagenet_p import imagenet_p_dataset_builder  # noqa: F401
from an_jax.errors import InputError
from an_jax.files import absolute

_PATHS = ("data_dir", "download_dir", "extract_dir", "manual_dir")


def main(args: build.Args) -> None:
    """Builds the data sets; exits with a message if an archive is missing or wrong."""
    # tfds imports TensorFlow when it first writes; imported here, it is quiet and without Keras.
    import an_jax.data.tf_on_cpu  # noqa: F401

    try:
        paths = {
            name: absolute(path)
            for name, path in vars(args.paths).items()
            if name in _PATHS and path
        }
        dataclasses.replace(args, paths=dataclasses.replace(args.paths, **paths)).execute()
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    app.run(main, flags_parser=cli_utils.make_flags_parser(build.Args, __doc__))
