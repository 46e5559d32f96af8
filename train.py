"""Trains a model: python train.py --config=configs/digits.py:an --workdir=runs/digits_an

Any field of the configuration can be changed on the command line: --config.num_epochs=5
"""

from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from an_jax.errors import exit_status

config_flags.DEFINE_config_file("config", None, "the configuration", lock_config=True)
flags.DEFINE_string("workdir", None, "where the run is kept, and resumed from")
flags.mark_flags_as_required(["config", "workdir"])


def main(argv) -> int:
    """Returns the exit status."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    logging.set_verbosity(logging.WARNING)  # orbax tells a lot at INFO
    from an_jax.training.loop import train

    return exit_status(lambda: train(flags.FLAGS.config, Path(flags.FLAGS.workdir)))


if __name__ == "__main__":
    app.run(main)
