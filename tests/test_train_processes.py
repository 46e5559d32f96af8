"""train.py as real processes: killed, preempted, out of disk space, on several hosts."""

import os
import resource
import shutil
import signal
import time

import numpy as np
import pytest
from etils import epath

from an_jax.errors import InputError
from an_jax.training import loop
from an_jax.training.log_files import read_lines
from tests.digits_runs import CHANGES, assert_same_end, config, read_last
from tests.processes import finish, start, start_two

ARGUMENTS = [
    "--config=configs/digits.py:bn",
    "--config.batch_size=240",
    "--config.num_epochs=3",
    "--config.warmup_epochs=1",
    "--config.learning_rate=0.005",  # so that rounding does not grow
    "--config.log_steps=1",
]


def arguments(workdir, *more):
    return [*ARGUMENTS, f"--workdir={workdir}", *more]


FLAGS = [
    "--config=configs/digits.py:bn",
    *(f"--config.{name}={value}" for name, value in CHANGES.items()),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run on eight devices that nothing has interrupted."""
    workdir = epath.Path(tmp_path_factory.mktemp("runs") / "whole")
    ((status, _, err),) = finish(start("train.py", *arguments(workdir)))
    assert status == 0, err
    return workdir


def metric(workdir, name="loss"):
    """The loss of each step, or another of its metrics."""
    lines = read_lines(epath.Path(workdir) / "steps.jsonl")
    assert [line["step"] for line in lines] == list(range(1, 19))
    return [line[name] for line in lines]


def assert_same_bits(workdir, expected):
    assert_same_end(epath.Path(workdir), expected, num_steps=18)
    assert metric(workdir) == metric(expected)


def wait_for(condition, process):
    deadline = time.monotonic() + 200
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.001)


def has_step(workdir, step):
    """Whether the log has come so far."""
    path = epath.Path(workdir) / "steps.jsonl"
    return any(line["step"] >= step for line in read_lines(path))


def is_saving(workdir):
    """Whether there is a checkpoint that is not complete."""
    return any("tmp" in path.name for path in workdir.glob("checkpoints/*"))


def kill_while_saving(process, workdir):
    """Stops the process where a save begins, and kills it if the save has not ended by then."""
    while True:
        wait_for(lambda: is_saving(workdir), process)
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        if is_saving(workdir):
            process.kill()
            process.communicate()
            return
        process.send_signal(signal.SIGCONT)


@pytest.mark.slow
def test_a_process_in_a_pod_is_killed_while_it_saves(finished, tmp_path):
    """A process in a pod of Kubernetes locks its directory. Killed while it saves, the run is
    resumed and ends with the bits of one that nothing interrupted."""
    workdir = epath.Path(tmp_path / "run")
    (tmp_path / "kubernetes.py").write_text("raise Exception('no service account')")
    pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "PYTHONPATH": str(tmp_path)}
    flags = [*FLAGS, f"--workdir=~/{workdir.name}", "--config.checkpoint_steps=1"]
    process = start("train.py", *flags, HOME=str(tmp_path), **pod)
    wait_for((workdir / ".lock").exists, process)
    with pytest.raises(InputError, match=f"is used by another run: process {process.pid} on "):
        loop.train(config(), workdir)
    kill_while_saving(process, workdir)
    loop.train(config(), workdir)
    assert_same_end(workdir, finished)
    assert not is_saving(workdir)


@pytest.mark.slow
def test_killed_again_and_again(whole, tmp_path):
    """A run that is killed repeatedly, once while it saves, ends with the same bits as an
    uninterrupted run."""
    workdir = tmp_path / "run"
    for step in (3, 5, 7, 9, 11):
        process = start("train.py", *arguments(workdir, "--config.checkpoint_steps=1"))
        wait_for(lambda step=step: has_step(workdir, step), process)
        wait_for(lambda: is_saving(workdir), process)
        process.kill()
        process.communicate()
        if is_saving(workdir):
            break
    assert is_saving(workdir)  # the kill left an incomplete checkpoint
    ((status, out, err),) = finish(
        start("train.py", *arguments(workdir, "--config.checkpoint_steps=1"))
    )
    assert status == 0, err
    assert "resuming after step" in out
    assert_same_bits(workdir, whole)
    assert not is_saving(workdir)


@pytest.mark.slow
def test_preempted(whole, tmp_path):
    """SIGTERM in the middle of an epoch writes a checkpoint and exits with status 0. The resumed
    run ends with the same bits as an uninterrupted one."""
    process = start("train.py", *arguments(tmp_path / "run"))
    wait_for(lambda: has_step(tmp_path / "run", 8), process)
    process.send_signal(signal.SIGTERM)
    ((status, out, err),) = finish(process)
    assert status == 0, err
    assert "Traceback" not in err
    (said,) = (line for line in out.splitlines() if line.startswith("SIGTERM: saved at step"))
    step = said.split()[4].rstrip(";")
    assert 8 <= int(step) < 18
    ((status, out, err),) = finish(start("train.py", *arguments(tmp_path / "run")))
    assert status == 0, err
    assert f"resuming after step {step}" in out
    assert_same_bits(tmp_path / "run", whole)


@pytest.mark.slow
def test_full_disk(whole, tmp_path):
    """With a file size limit that only logs stay below, the checkpoint fails and the one before it
    is kept."""
    workdir = tmp_path / "run"
    shutil.copytree(whole, workdir)
    shutil.rmtree(workdir / "checkpoints/18")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        process = start("train.py", *arguments(workdir))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    ((status, _, err),) = finish(process)
    assert status == 1
    error = err.splitlines()[-1]
    assert error.startswith(f"error: cannot write to {workdir}: File too large; ")
    assert (
        "the last good checkpoint is step 12: raise the limit on the size of files (ulimit -f), "
        "then run the same command again" in error
    )
    ((status, out, err),) = finish(start("train.py", *arguments(workdir)))
    assert status == 0, err
    assert "resuming after step 12" in out
    assert_same_bits(workdir, whole)


@pytest.mark.slow
def test_two_processes(whole, tmp_path):
    """Two processes with four devices each have the same losses and norms as one with eight. One
    process reads the checkpoints that two have written."""
    found = finish(*start_two("train.py", *arguments(tmp_path / "run")))
    assert [status for status, *_ in found] == [0, 0], found
    assert "epoch   3/3" in found[0][1]
    assert "epoch" not in found[1][1]
    np.testing.assert_allclose(metric(tmp_path / "run"), metric(whole), rtol=1e-5)
    for name in ("gradient_norm", "update_norm"):
        errors = np.abs(np.divide(metric(tmp_path / "run", name), metric(whole, name)) - 1)
        # ReLU may rectify a value within rounding of 0 in one run only, which changes the gradient
        # of that step.
        assert np.median(errors) <= 1e-6
        assert max(errors) <= 1e-3
    states = read_last(epath.Path(tmp_path / "run")), read_last(whole)
    for path, value in states[1].params.items():
        np.testing.assert_allclose(states[0].params[path], value, atol=1e-5)


@pytest.mark.slow
def test_two_processes_are_preempted(whole, tmp_path):
    """After Ctrl-C in one of two processes, both save the same step and exit. One process resumes
    the run, whose losses are the same as those of one process throughout."""
    processes = start_two("train.py", *arguments(tmp_path / "run"))
    wait_for(lambda: has_step(tmp_path / "run", 4), processes[0])
    processes[1].send_signal(signal.SIGINT)
    found = finish(*processes)
    assert [status for status, *_ in found] == [0, 0], found
    assert "SIGTERM: saved at step" in found[0][1]
    ((status, out, err),) = finish(start("train.py", *arguments(tmp_path / "run")))
    assert status == 0, err
    assert "resuming after step" in out
    np.testing.assert_allclose(metric(tmp_path / "run"), metric(whole), rtol=1e-5)
