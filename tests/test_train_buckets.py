"""Training in buckets: killed, preempted, in two processes, and with a server that fails."""

import re
import signal
import time

import jax
import numpy as np
import pytest

import an_jax
from an_jax import functional
from an_jax.checkpoint import is_checkpoint
from an_jax.errors import InputError
from an_jax.training import lock, loop
from an_jax.training.checkpoints import TrainCheckpoints
from an_jax.training.log_files import read_lines
from tests.digits_runs import CHANGES, NUM_STEPS, assert_same_end, config, new_state, read_last
from tests.fake_gcs import CUT, FOREVER
from tests.processes import finish, start, start_two


@pytest.fixture(autouse=True)
def short_lease(monkeypatch):
    """The lock of a run that was killed expires at once."""
    monkeypatch.setattr(lock, "EXPIRY", 0.1)
    monkeypatch.setattr(lock, "SETTLING", 0.02)


def wait_for(condition, process):
    deadline = time.monotonic() + 200
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def train_flags(workdir, **changes):
    fields = {**CHANGES, **changes}
    return [
        "--config=configs/digits.py:bn",
        *(f"--config.{name}={value}" for name, value in fields.items()),
        f"--workdir={workdir}",
    ]


def test_train_names_a_missing_bucket(bucket):
    ((status, out, err),) = finish(start("train.py", *train_flags("gs://none/run")))
    assert (status, out) == (1, "")
    assert err.startswith("error: there is no bucket gs://none; ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("pattern", "status", "times", "is_saved"),
    [
        (".", 503, 1, True),
        ("GET.*weights", 404, 1, True),
        ("ocdbt", CUT, 3, True),
        ("PUT", 429, 2, True),
        ("^POST.*commit_success", 403, 1, False),
        pytest.param(".", 503, FOREVER, False, marks=pytest.mark.slow),
    ],
)
def test_a_save_is_whole_or_not_at_all(bucket, pattern, status, times, is_saved):
    """A fault in a save is overcome, or is an error after which the earlier step is the last."""
    states = [new_state(), new_state()._replace(step=jax.numpy.int32(7))]

    def save(checkpoints, step):
        checkpoints.save(step, states[step - 1])
        checkpoints.wait()

    with TrainCheckpoints(bucket.path / "run", keep=2) as checkpoints:
        save(checkpoints, 1)
        bucket.fail(pattern, status, times)
        if is_saved:
            save(checkpoints, 2)
        else:
            with pytest.raises(InputError, match=r"cannot write to gs://bucket-\d+/run: "):
                save(checkpoints, 2)
    bucket.heal()
    with TrainCheckpoints(bucket.path / "run", keep=2) as checkpoints:
        restored = checkpoints.restore_last(new_state())
    assert jax.tree.all(jax.tree.map(np.array_equal, restored, states[is_saved]))


def saves_begun(bucket):
    """Steps whose checkpoints have been begun."""
    names = (re.search(r"^POST.*checkpoints%2F(\d+)%2F", name) for name in bucket.requests())
    return {int(name[1]) for name in names if name}


def kill_while_saving(bucket, workdir, process):
    """Kills the process in a save after the second. Returns that step."""
    wait_for(lambda: len(saves_begun(bucket)) > 2, process)
    process.kill()
    process.communicate()
    step = max(saves_begun(bucket))
    assert (workdir / f"checkpoints/{step}").exists()
    assert not is_checkpoint(workdir / f"checkpoints/{step}")
    return step


@pytest.mark.slow
def test_a_run_is_killed_in_a_save_and_resumes(bucket, finished, capsys):
    """A run in a bucket that is killed in a save goes on from the save before. It has the bits of
    a local run that nothing interrupted."""
    workdir = bucket.path / "run"
    bucket.delay(0.01)
    process = start("train.py", *train_flags(workdir, checkpoint_steps=1))
    step = kill_while_saving(bucket, workdir, process)
    bucket.heal()
    loop.train(config(), workdir)
    assert f"resuming after step {step - 1}" in capsys.readouterr().out
    assert_same_end(workdir, finished)
    parts = [read_lines(workdir / f"steps/{epoch:05d}.jsonl") for epoch in (1, 2)]
    assert [sum(line["steps"] for line in part) for part in parts] == [NUM_STEPS / 2] * 2
    for line, expected in zip(
        *(read_lines(run / "metrics.jsonl") for run in (workdir, finished)), strict=True
    ):
        assert line["val_top1"] == expected["val_top1"]
        assert line["loss"] == pytest.approx(expected["loss"])
    loaded, expected = (
        functional.split(an_jax.load_model(run)).params for run in (workdir, finished)
    )
    assert jax.tree.all(jax.tree.map(np.array_equal, loaded, expected))


@pytest.mark.slow
def test_two_processes_train_in_a_bucket(bucket, finished):
    """SIGTERM reaches one of two processes: both save the same step and exit. The run goes on in
    one process."""
    workdir = bucket.path / "run"
    pair = start_two("train.py", *train_flags(workdir, checkpoint_steps=1))
    wait_for(lambda: len(saves_begun(bucket)) > 1, pair[0])
    pair[1].send_signal(signal.SIGTERM)
    results = finish(*pair)
    assert [status for status, *_ in results] == [0, 0], results
    assert "SIGTERM: saved at step" in results[0][1]
    loop.train(config(), workdir)
    final, expected = read_last(workdir), read_last(finished)
    for path, value in expected.params.items():
        np.testing.assert_allclose(final.params[path], value, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["POST|PUT", "PUT.*optimizer"])
def test_permission_is_withdrawn_in_training(bucket, finished, pattern):
    """The command ends at once with a line, and goes on when it may write again."""
    workdir = bucket.path / "run"
    process = start("train.py", *train_flags(workdir, checkpoint_steps=1))
    wait_for(lambda: len(saves_begun(bucket)) > 2, process)
    bucket.fail(pattern, 403)
    began = time.monotonic()
    ((status, _, err),) = finish(process)
    assert time.monotonic() - began < 60
    assert status == 1
    assert "Traceback" not in err
    error = err.splitlines()[-1]
    assert re.match(
        r"error: cannot write to gs://bucket-\d+/run: HTTP response code 403 \(injected\) when .*; "
        r"the last good checkpoint is step \d+: .*run the same command again to resume",
        error,
    )
    bucket.heal()
    loop.train(config(), workdir)
    assert_same_end(workdir, finished)
