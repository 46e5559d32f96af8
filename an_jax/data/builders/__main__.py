"""`tfds build` that also knows these builders, by name: `python -m an_jax.data.builders --help`.

It takes the options of `tfds build`, and does without Apache Beam and mlcroissant, which tfds
4.9.10's own command needs merely to start:

    python -m an_jax.data.builders imagenet_o imagenet_c/fog_3 --manual_dir=M --data_dir=D
"""

import sys

from absl import app
from tensorflow_datasets.scripts.cli import build, cli_utils

# Imported, they are registered.
from an_jax.data.builders.imagenet_c import imagenet_c_dataset_builder  # noqa: F401
from an_jax.data.builders.imagenet_o import imagenet_o_dataset_builder  # noqa: F401
from an_jax.data.builders.imagenet_p import imagenet_p_dataset_builder  # noqa: F401
from an_jax.errors import InputError


def main(args: build.Args) -> None:
    try:
        args.execute()
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    app.run(main, flags_parser=cli_utils.make_flags_parser(build.Args, __doc__))
