"""Runs evaluate.py several times in one process, as one start takes seconds.

The devices of several processes alternate in the mesh, as they can on TPUs.

Argument: a JSON list of argument lists. Prints a line "STATUS: n" to both streams after each run.
"""

import json
import runpy
import sys
from pathlib import Path

import jax

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
first, *others = json.loads(sys.argv[1])

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

for arguments in others:
    end(evaluate.main(arguments))
