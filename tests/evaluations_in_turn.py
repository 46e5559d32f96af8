"""Runs evaluate.py several times in one process, as one start takes seconds.

Argument: a JSON list of argument lists, in which {process} stands for the number of the process.
["train", WORKDIR, INIT_FROM] trains a model instead. Prints a line "STATUS: n" to both streams
after each run.
"""

import functools
import json
import os
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
first, *others = json.loads(sys.argv[1].replace("{process}", os.environ["JAX_PROCESS_ID"]))


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
    if arguments[0] == "train":
        _, workdir, init_from = arguments
        end(exit_status(functools.partial(loop.train, config(init_from=init_from), workdir)))
    else:
        end(evaluate.main(arguments))
