"""What training would need: python benchmark.py --plan=v5e:4x4 --config=configs/imagenet.py:MODEL

Compiles the training step for a TPU topology on any Linux machine with libtpu; see
docs/training.md. Fields of the configuration can be changed as for train.py.
"""

import dataclasses
import json
import os
from pathlib import Path

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from an_jax.errors import exit_status

config_flags.DEFINE_config_file("config", None, "the configuration", lock_config=True)
flags.DEFINE_string("plan", None, "TPU generation and shape, such as v5e:4x4")
flags.DEFINE_string("json", None, "file to write the figures to")
flags.mark_flags_as_required(["config", "plan"])


def main(argv) -> int:
    """Returns the exit status."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    # The compiler needs no TPU: it is neither to look for one, nor to ask its metadata server.
    jax.config.update("jax_platforms", "cpu")
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "none")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    logging.set_verbosity(logging.WARNING)
    return exit_status(run)


def run() -> None:
    """Raises InputError where the user must mend something."""
    from an_jax.destination import replacing
    from an_jax.plan import describe, make_plan

    plan = make_plan(flags.FLAGS.config, flags.FLAGS.plan)
    print(describe(plan))
    if flags.FLAGS.json:
        with replacing(flags.FLAGS.json) as temporary:
            Path(temporary).write_text(json.dumps(dataclasses.asdict(plan), indent=2) + "\n")


if __name__ == "__main__":
    app.run(main)
