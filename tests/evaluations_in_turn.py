"""Runs evaluate.py several times in one process, as one start takes seconds, and then a training.

The devices of several processes alternate in the mesh of the evaluations, as they can on TPUs.

Arguments: a JSON list of argument lists, and the working directory of the training. Prints a line
"STATUS: n" to both streams after each run.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax

import evaluate
from an_jax import parallel
from an_jax.errors import exit_status
from an_jax.training import loop
from tests.digits_runs import config

parallel.initialize(handles_sigterm=True)
commands, workdir = json.loads(sys.argv[1]), sys.argv[2]


def end(status):
    for stream in (sys.stdout, sys.stderr):
        print(f"STATUS: {status}", file=stream, flush=True)


make_mesh = parallel.make_mesh
parallel.make_mesh = lambda: make_mesh(devices=jax.devices()[::2] + jax.devices()[1::2])
for arguments in commands:
    end(evaluate.main(arguments))
parallel.make_mesh = make_mesh
end(exit_status(lambda: loop.train(config(dataset="folder", data_dir="folder"), workdir)))
