"""Trains a model: python train.py --config=configs/digits.py:an --workdir=runs/digits_an

A flag changes any field of the configuration: --config.num_epochs=5
On several hosts, run the same command on each; see docs/training.md.
"""

import os
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from an_jax.errors import exit_status

config_flags.DEFINE_config_file("config", None, "the configuration", lock_config=True)
flags.DEFINE_string("workdir", None, "directory of the run, from which it resumes; may be gs://")
flags.DEFINE_float("stall_minutes", 30, "end a process that makes no step for so long; 0: never")
flags.DEFINE_integer("initialization_timeout", 300, "seconds to wait for all processes to start")
flags.DEFINE_integer(
    "heartbeat_timeout", 100, "seconds without a heartbeat until a process is dead"
)
flags.mark_flags_as_required(["config", "workdir"])


def main(argv: list[str]) -> int:
    """Runs the command and returns its exit status."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    logging.set_verbosity(logging.WARNING)
    status = exit_status(run)
    if status:
        end_at_once(status)
    return status


def run() -> None:
    """Trains. Raises InputError if the command, the configuration or the data are invalid."""
    from an_jax.jax_settings import collect_garbage_rarely

    collect_garbage_rarely()  # before TensorFlow and orbax are imported
    from an_jax import parallel
    from an_jax.buckets import check_bucket
    from an_jax.devices import check_devices
    from an_jax.files import absolute
    from an_jax.jax_settings import enable_compilation_cache, set_matmul_precision
    from an_jax.watchdog import watchdog

    workdir = absolute(flags.FLAGS.workdir)
    check_bucket(workdir)
    parallel.initialize(
        handles_sigterm=True,
        initialization_timeout=flags.FLAGS.initialization_timeout,
        heartbeat_timeout=flags.FLAGS.heartbeat_timeout,
    )
    check_devices()
    enable_compilation_cache(workdir)
    set_matmul_precision(flags.FLAGS.config.dtype)
    parallel.connect()
    from an_jax.training.loop import train
    from an_jax.training.messages import silence_failed_saves

    silence_failed_saves()
    with watchdog(flags.FLAGS.stall_minutes):
        train(flags.FLAGS.config, workdir)


def end_at_once(status: int) -> None:
    """Ends the process. After a failed save, orbax's threads would hold it for five minutes."""
    import jax

    if jax.distributed.is_initialized():
        jax.distributed.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    app.run(main)
