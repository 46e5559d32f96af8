"""Trains a model: python train.py --config=configs/digits.py:an --workdir=runs/digits_an

A flag changes any field of the configuration: --config.num_epochs=5
On several hosts, run the same command on each; see docs/training.md.
"""

from absl import app, flags, logging
from ml_collections import config_flags

from an_jax.errors import exit_status

config_flags.DEFINE_config_file("config", None, "the configuration", lock_config=True)
flags.DEFINE_string("workdir", None, "directory of the run, from which it resumes; may be gs://")
flags.mark_flags_as_required(["config", "workdir"])


def main(argv: list[str]) -> int:
    """Runs the command and returns its exit status."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    logging.set_verbosity(logging.WARNING)
    return exit_status(run)


def run() -> None:
    """Trains. Raises InputError if the command, the configuration or the data are invalid."""
    from an_jax import parallel
    from an_jax.devices import check_devices
    from an_jax.files import absolute
    from an_jax.jax_settings import enable_compilation_cache

    parallel.initialize()
    check_devices()
    workdir = absolute(flags.FLAGS.workdir)
    enable_compilation_cache(workdir)
    parallel.connect()
    from an_jax.training.loop import train
    from an_jax.training.messages import silence_failed_saves

    silence_failed_saves()
    train(flags.FLAGS.config, workdir)


if __name__ == "__main__":
    app.run(main)
