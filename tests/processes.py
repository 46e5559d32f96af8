"""Runs commands as processes, alone or two as one job."""

import fcntl
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from tests.reference import FIXTURES

ROOT = FIXTURES.parents[1]


def start(script: str, *arguments, devices: int = 8, cwd=None, **environment) -> subprocess.Popen:
    """Starts a script of the repository on a number of CPU devices."""
    return subprocess.Popen(
        [sys.executable, ROOT / script, *map(str, arguments)],
        env={**os.environ, "JAX_NUM_CPU_DEVICES": str(devices), **environment},
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two(script: str, *arguments, directories=(None, None)) -> list[subprocess.Popen]:
    """Starts a job of two processes of four devices each."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    job = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    return [
        start(script, *arguments, devices=4, cwd=directories[i], **job, JAX_PROCESS_ID=str(i))
        for i in range(2)
    ]


def finish(*processes: subprocess.Popen) -> list[tuple[int, str, str]]:
    """Waits for processes. Returns the exit status, stdout and stderr of each."""
    try:
        outputs = [process.communicate(timeout=900) for process in processes]
    finally:
        for process in processes:  # after a timeout; one that has ended is left alone
            if process.poll() is None:
                process.kill()
                process.communicate()
    return [(p.returncode, *output) for p, output in zip(processes, outputs, strict=True)]


def shared_by_workers(tmp_path_factory, name: str) -> Path:
    """Returns a directory that all workers of pytest-xdist have in common."""
    base = tmp_path_factory.getbasetemp()
    directory = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    directory.mkdir(exist_ok=True)
    return directory


def once(directory: Path, make):
    """Returns the JSON that `make` returns; the first worker that needs it computes it for all."""
    with (directory / ".once").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        content = file.read()
        if not content:
            content = json.dumps(make())
            file.write(content)
    return json.loads(content)
