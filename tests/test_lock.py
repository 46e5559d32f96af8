"""One run at a time in a working directory."""

import errno
import fcntl
import json
import os
import socket

import pytest
from etils import epath

from an_jax.errors import InputError
from an_jax.training import lock
from an_jax.training.lock import RunLock


@pytest.fixture
def workdir(tmp_path):
    return epath.Path(tmp_path / "run")


@pytest.fixture
def without_locks(monkeypatch):
    """A file system without locks; leases are renewed every 50 ms."""

    def refuse(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    for name, seconds in (("RENEWAL", 0.05), ("EXPIRY", 0.5), ("SETTLING", 0.02)):
        monkeypatch.setattr(lock, name, seconds)


def take_over(workdir):
    """Another run writes its lease."""
    content = json.dumps({"host": "tpu-3", "process": 7, "since": "noon", "token": "other"})
    (workdir / ".lock").write_text(content)
    return content


def assert_used(workdir):
    here = f"process {os.getpid()} on {socket.gethostname()}, since 2"
    with pytest.raises(InputError, match=f"run is used by another run: {here}"), RunLock(workdir):
        pass


def test_a_lock(workdir):
    """A second run is refused. A file that a killed run has left behind is no lock."""
    with RunLock(workdir) as held:
        assert_used(workdir)
        assert_used(workdir)
        held.check()
    assert not list(workdir.iterdir())
    take_over(workdir)
    with RunLock(workdir):
        assert_used(workdir)
    assert not list(workdir.iterdir())


def test_a_run_that_is_ending_removes_the_file_meanwhile(workdir, monkeypatch):
    workdir.mkdir()
    flock = fcntl.flock

    def slow(descriptor, operation):
        monkeypatch.undo()
        (workdir / ".lock").unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", slow)
    with RunLock(workdir):
        assert_used(workdir)


def test_a_lease_is_renewed(workdir, without_locks, capsys):
    with RunLock(workdir) as held:
        assert_used(workdir)
        held.check()
    assert not list(workdir.iterdir())
    assert "run was used by process" in capsys.readouterr().out


def test_the_lease_of_a_run_that_was_killed_expires(workdir, without_locks, capsys):
    workdir.mkdir()
    take_over(workdir)
    with RunLock(workdir) as held:
        assert "process 7 on tpu-3, since noon; waiting" in capsys.readouterr().out
        assert_used(workdir)
        held.check()


def test_a_lease_that_is_taken_over(workdir, without_locks):
    """The first run stops, and leaves the other one's lease alone."""
    with RunLock(workdir) as held:
        content = take_over(workdir)
        held._renewing.join(10)
        with pytest.raises(InputError, match=r"was taken over by process 7 on tpu-3, since noon"):
            held.check()
    assert (workdir / ".lock").read_text() == content


def test_of_two_runs_that_start_at_the_same_time_one_wins(workdir, without_locks, monkeypatch):
    write = RunLock._write_lease

    def write_first(first):
        write(first)
        take_over(workdir)

    monkeypatch.setattr(RunLock, "_write_lease", write_first)
    with pytest.raises(InputError, match="run is used by another run: process 7"), RunLock(workdir):
        pass


def test_a_file_of_another_origin_is_not_changed(workdir):
    workdir.mkdir()
    (workdir / ".lock").write_text("mine")
    with pytest.raises(InputError, match=r"\.lock is no lock of a training run"), RunLock(workdir):
        pass
    assert (workdir / ".lock").read_text() == "mine"
