"""Runs evaluate.py and trainings in turn in one process, as one start takes seconds.

The devices of several processes alternate in the mesh, as they can on TPUs.

Argument: a JSON list of argument lists, in which {process} stands for the number of the process.
["train", WORKDIR, FIELDS] trains a model instead, ["preempt", WORKDIR, FIELDS] until process 1
receives SIGTERM after the third step. Prints a line "STATUS: n" to both streams after each run, and
a line "listed: DIRECTORY" to stdout for each directory of images.
"""

import functools
import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import pytest

import evaluate
from an_jax import parallel
from an_jax.data.tf_on_cpu import tf
from an_jax.errors import exit_status
from an_jax.training import loop
from tests.digits_runs import config, interrupt_after

parallel.initialize(handles_sigterm=True)
make_mesh = parallel.make_mesh
parallel.make_mesh = lambda size=1: make_mesh(size, jax.devices()[::2] + jax.devices()[1::2])
list_directory = tf.io.gfile.listdir


def list_and_tell(path):
    print(f"listed: {path}", flush=True)
    return list_directory(path)


tf.io.gfile.listdir = list_and_tell

for arguments in json.loads(sys.argv[1].replace("{process}", os.environ["JAX_PROCESS_ID"])):
    if arguments[0] in ("train", "preempt"):
        kind, workdir, fields = arguments
        with pytest.MonkeyPatch.context() as patch:
            if kind == "preempt" and jax.process_index() == 1:
                interrupt_after(patch, 3, signal.SIGTERM)
            status = exit_status(functools.partial(loop.train, config(**fields), workdir))
    else:
        status = evaluate.main(arguments)
    for stream in (sys.stdout, sys.stderr):
        print(f"STATUS: {status}", file=stream, flush=True)
