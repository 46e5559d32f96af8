"""Trains a model: python train.py --config=configs/digits.py:an --workdir=runs/digits_an

Any field of the configuration can be changed on the command line: --config.num_epochs=5
On several hosts, the same command runs on each; see docs/training.md.
"""

from logging import getLogger

from absl import app, flags, logging
from ml_collections import config_flags

from an_jax.errors import exit_status

config_flags.DEFINE_config_file("config", None, "the configuration", lock_config=True)
flags.DEFINE_string("workdir", None, "where the run is kept, and resumed from; may be gs://")
flags.mark_flags_as_required(["config", "workdir"])


def main(argv) -> int:
    """Returns the exit status."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    # Of a failed save, orbax would print a traceback for each array besides raising the error.
    logging.set_verbosity(logging.FATAL)
    getLogger("asyncio").setLevel("CRITICAL")
    return exit_status(run)


def run() -> None:
    """Raises InputError where the user must mend something."""
    from an_jax import parallel
    from an_jax.files import absolute
    from an_jax.jax_settings import keep_compiled

    parallel.initialize()
    workdir = absolute(flags.FLAGS.workdir)
    keep_compiled(workdir)
    from an_jax.training.loop import train

    train(flags.FLAGS.config, workdir)


if __name__ == "__main__":
    app.run(main)
