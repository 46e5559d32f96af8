"""Runs evaluate.py several times in one process, as one start takes seconds, and then a training.

The devices of several processes alternate in the mesh, as they can on TPUs.

Arguments: a JSON list of argument lists, and the working directory of the training. Prints a line
"STATUS: n" to both streams after each run.
"""

import json
import runpy
import sys
from pathlib import Path

import jax

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
(first, *others), workdir = json.loads(sys.argv[1]), sys.argv[2]

from an_jax import parallel  # noqa: E402

make_mesh = parallel.make_mesh
parallel.make_mesh = lambda: make_mesh(devices=jax.devices()[::2] + jax.devices()[1::2])


def end(status):
    for stream in (sys.stdout, sys.stderr):
        print(f"STATUS: {status}", file=stream, flush=True)


sys.argv = ["evaluate.py", *first]
try:
    runpy.run_path(str(ROOT / "evaluate.py"), run_name="__main__")
except SystemExit as exit_:
    end(exit_.code)

import evaluate  # noqa: E402
from an_jax.errors import exit_status  # noqa: E402
from an_jax.training import loop  # noqa: E402
from tests.digits_runs import config  # noqa: E402

for arguments in others:
    end(evaluate.main(arguments))
training = config(dataset="folder", data_dir="folder")
end(exit_status(lambda: loop.train(training, workdir)))
