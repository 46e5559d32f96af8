"""A process without progress ends and says what it waits for."""

import os
import socket
import subprocess
import sys

import pytest

from an_jax import watchdog
from tests import fake_archives
from tests.processes import ROOT, finish, start_two

WAIT = """
import time
from an_jax.watchdog import note_progress, watchdog
def wait_for_others():
    time.sleep({wait_seconds})
with watchdog({minutes}):
    for step in range(3):
        time.sleep({step_seconds})
        note_progress(f"step {{step}}")
    print("stepped", flush=True)
    wait_for_others()
"""


def run(**numbers):
    command = [sys.executable, "-c", WAIT.format(**numbers)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_no_progress_ends_the_process():
    """Steps of 0.3 s are progress within 0.6 s; waiting for 60 s is not."""
    ended = run(minutes=0.01, step_seconds=0.3, wait_seconds=60)
    assert ended.returncode == watchdog.EXIT_STATUS
    assert ended.stdout == "stepped\n"
    message, _, stacks = ended.stderr.partition("\n")
    assert "no progress for 0.01 minutes since step 2: process 0 of 1" in message
    assert socket.gethostname() in message
    assert "in wait_for_others" in stacks


def test_zero_means_never():
    assert run(minutes=0, step_seconds=0, wait_seconds=0.1).returncode == 0


@pytest.mark.parametrize("body", ["time.sleep(0.9)", "note_progress('all')"])
def test_the_process_goes_on(body):
    """Before the first progress, lists of files and compilation may take longer than a step. After
    the command, as in a notebook, nothing is watched."""
    code = "import time; from an_jax.watchdog import note_progress, watchdog\n"
    code += f"with watchdog(0.005): {body}\n"
    code += "time.sleep(0.6)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0


@pytest.mark.slow
def test_a_process_that_hangs(tmp_path, small_checkpoint):
    """Process 1 waits for an image for ever, and process 0 for process 1. Both say so and end."""
    places = tmp_path / "here", tmp_path / "there"
    for place in places:
        fake_archives.make_all(place, heavy=False)
    last = max((places[1] / "imagenet-a").glob("*/*.jpg"))
    last.unlink()
    os.mkfifo(last)  # nothing writes to it
    given = ["--checkpoint", small_checkpoint, "--data_dir=.", "--output_dir", tmp_path / "out"]
    given += ["--datasets=imagenet-sketch,imagenet-a", "--batch_size=16", "--allow_partial"]
    ended = finish(*start_two("evaluate.py", *given, "--stall_minutes=0.2", directories=places))
    for process, (status, _, err) in enumerate(ended):
        assert status == watchdog.EXIT_STATUS, err
        message = f"since small on imagenet-sketch: process {process} of 2"
        assert message in err
        stacks = err.partition(message)[2]
        assert ("in eval_batches" in stacks) == (process == 1)
