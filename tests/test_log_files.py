"""The training log in a bucket: written in the background, in parts, whole after faults."""

import time

import pytest
from etils import epath

from an_jax.data.tf_on_cpu import tf
from an_jax.errors import InputError
from an_jax.training import log_files
from an_jax.training.log import RunLog
from an_jax.training.log_files import read_lines
from tests.fake_gcs import CUT


def line(step):
    """There are 50 steps in an epoch."""
    return {"epoch": (step - 1) // 50 + 1, "step": step, "loss": 1 / step}


def logged(workdir, first, last):
    """Logs steps, and leaves the log."""
    with RunLog(workdir, first - 1, is_writer=True) as log:
        for step in range(first, last + 1):
            log.add_steps(line(step))
            if step % 50 == 0:
                log.add_epoch(line(step))
    return log


def tags(workdir):
    """The steps of each tag of the events."""
    found = {}
    for path in sorted((workdir / "tensorboard").glob("events*")):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                found.setdefault(value.tag, []).append(event.step)
    return found


def steps(workdir, epoch):
    return [line["step"] for line in read_lines(workdir / f"steps/{epoch:05d}.jsonl")]


def writes(bucket):
    return [name for name in bucket.requests() if name.startswith("PUT")]


def test_a_log_in_a_bucket(bucket):
    """The steps are in one object for each epoch. A resumed run drops those after its step."""
    workdir = bucket.path / "run"
    assert logged(workdir, 1, 120).steps == [line(step) for step in range(1, 121)]
    assert len(writes(bucket)) < 20
    assert [steps(workdir, epoch) for epoch in (1, 2, 3)] == [
        list(range(1, 51)),
        list(range(51, 101)),
        list(range(101, 121)),
    ]
    assert read_lines(workdir / "metrics.jsonl") == [line(50), line(100)]
    expected = {"train/loss": list(range(1, 121)), "loss": [50, 100]}
    assert {tag: tags(workdir)[tag] for tag in expected} == expected

    log = logged(workdir, 61, 61)
    assert log.epochs == [line(50)]
    assert log.steps == [line(step) for step in range(51, 62)]
    assert steps(workdir, 2) == list(range(51, 62))
    assert not (workdir / "steps/00003.jsonl").exists()
    assert read_lines(workdir / "metrics.jsonl") == [line(50)]


def test_training_does_not_wait_for_the_log(bucket):
    """A line takes no time, however late the replies are, and lines are written together."""
    with RunLog(bucket.path / "run", 0, is_writer=True) as log:
        bucket.heal()
        bucket.delay(0.3)
        began = time.monotonic()
        for step in range(1, 50):
            log.add_steps(line(step))
        assert time.monotonic() - began < 0.3
    assert len(writes(bucket)) <= 4  # lines and events, now and at the end
    assert steps(bucket.path / "run", 1) == list(range(1, 50))


def test_lines_are_written_every_ten_seconds(bucket, monkeypatch):
    monkeypatch.setattr(log_files, "INTERVAL", 0.5)
    with RunLog(bucket.path / "run", 0, is_writer=True) as log:
        log.add_steps(line(1))
        time.sleep(0.6)
        log.add_steps(line(2))
        log.add_steps(line(3))
        deadline = time.monotonic() + 60
        while steps(bucket.path / "run", 1) != [1, 2] and time.monotonic() < deadline:
            time.sleep(0.05)
        assert steps(bucket.path / "run", 1) == [1, 2]
    assert steps(bucket.path / "run", 1) == [1, 2, 3]


@pytest.mark.parametrize("status", [503, 429, CUT])
def test_faults_that_pass(bucket, status):
    workdir = bucket.path / "run"
    with RunLog(workdir, 0, is_writer=True) as log:
        bucket.fail("PUT|POST", status, 4)
        log.add_steps(line(1))
        log.write()
        log.add_steps(line(2))
    assert steps(workdir, 1) == [1, 2]
    assert tags(workdir)["train/loss"] == [1, 2]


def test_a_fault_that_stays(bucket):
    """The next line raises the error, or the end of the log."""
    workdir = bucket.path / "run"
    with RunLog(workdir, 0, is_writer=True) as log:
        log.add_steps(line(1))
    log = RunLog(workdir, 1, is_writer=True)
    bucket.fail("PUT|POST", 403)
    with pytest.raises(InputError, match=r"cannot write to gs://bucket-\d+/run: .*403"), log:
        log.add_steps(line(2))
    bucket.heal()
    assert steps(workdir, 1) == [1]


def test_a_log_on_a_disk(tmp_path):
    """Each line is written at once."""
    workdir = epath.Path(tmp_path)
    with RunLog(workdir, 0, is_writer=True) as log:
        log.add_steps(line(1))
        log.submit(lambda: None)
        deadline = time.monotonic() + 60
        while not read_lines(workdir / "steps.jsonl") and time.monotonic() < deadline:
            time.sleep(0.01)
        assert read_lines(workdir / "steps.jsonl") == [line(1)]
    assert tags(workdir)["train/loss"] == [1]
