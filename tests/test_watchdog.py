"""A process without progress ends and says what it waits for."""

import socket
import subprocess
import sys

import pytest

from an_jax import watchdog
from tests.processes import ROOT

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
