"""Training runs in this process that are interrupted, killed or copied, and resume."""

import json
import os
import shutil
import signal
from pathlib import Path

import jax.numpy as jnp
import pytest
from etils import epath

from an_jax import load_model
from an_jax.checkpoint import ModelCard, best_step
from an_jax.errors import InputError
from an_jax.files import write_atomically
from an_jax.training import build, curves, loop, validation
from an_jax.training.checkpoints import TrainCheckpoints
from an_jax.training.log_files import read_lines
from an_jax.training.workdir import open_workdir
from an_jax.zoo import Preprocessing
from tests.digits_runs import assert_same_end, config, interrupt_after, new_state


def copy_after_first_epoch(finished, tmp_path):
    """A copy of the finished run as it was after its first epoch's last step."""
    workdir = epath.Path(tmp_path / "run")
    shutil.copytree(finished, workdir)
    shutil.rmtree(workdir / "checkpoints/12")
    return workdir


def test_interrupted_and_resumed_in_the_middle_of_an_epoch(finished, tmp_path, monkeypatch, capsys):
    """A run stopped by SIGTERM, which saves, then by two Ctrl-C, which do not, ends with the same
    weights, bit for bit, and the same epochs in its log as an uninterrupted run."""
    workdir, steps, make = epath.Path(tmp_path / "run"), [], build.make_train_step
    changes = {"checkpoint_steps": 4, "log_steps": 2}  # these do not change the result

    def recorded(*args, **options):
        steps.append(make(*args, **options))
        return steps[-1]

    monkeypatch.setattr(build, "make_train_step", recorded)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2, signal.SIGTERM)
        loop.train(config(**changes), workdir)
    assert (
        "SIGTERM: saved at step 2; run the same command again to resume" in capsys.readouterr().out
    )
    monkeypatch.setattr("an_jax.zoo.create_model", None)  # a resumed run draws no weights
    with monkeypatch.context() as patch:
        interrupt_after(patch, 9, signal.SIGINT, signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            loop.train(config(**changes), workdir)
    assert "resuming after step 2" in capsys.readouterr().out
    loop.train(config(**changes), workdir)
    assert "resuming after step 8" in capsys.readouterr().out
    assert_same_end(workdir, finished)
    assert [step._cache_size() for step in steps] == [1, 1, 1]  # each compiled once
    lines = read_lines(workdir / "steps.jsonl")
    assert [line["step"] for line in lines] == [2, 4, 6, 8, 10, 12]
    for actual, expected in zip(
        curves.read_metrics(workdir), curves.read_metrics(finished), strict=True
    ):
        assert actual["loss"] == pytest.approx(expected["loss"], rel=1e-6)
        assert actual["val_top1"] == expected["val_top1"]


def test_ctrl_c_saves(finished, tmp_path, monkeypatch, capfd):
    workdir, before = copy_after_first_epoch(finished, tmp_path), signal.getsignal(signal.SIGINT)
    interrupt_after(monkeypatch, 7, signal.SIGINT)
    loop.train(config(), workdir)
    printed = capfd.readouterr()
    assert "Ctrl-C: saving after this step; press it again to stop at once\n" in printed.err
    assert "Ctrl-C: saved at step 7; run the same command again to resume\n" in printed.out
    assert (workdir / "checkpoints/7").exists()
    assert signal.getsignal(signal.SIGINT) == before


def test_killed_before_an_epoch_was_evaluated(finished, tmp_path, monkeypatch, capsys):
    """A run that is killed after an epoch's last step evaluates that epoch on its next start, and
    does not train it again."""
    workdir = copy_after_first_epoch(finished, tmp_path)
    shutil.rmtree(workdir / "best")
    (workdir / "metrics.jsonl").unlink()
    with pytest.raises(InputError, match="holds no evaluated epoch yet"):
        load_model(workdir)

    def preempted(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("went on validating")

    with monkeypatch.context() as patch:
        patch.setattr(validation.Validation, "__call__", preempted)
        loop.train(config(), workdir)
    assert "SIGTERM: saved at step 6;" in capsys.readouterr().out
    assert not (workdir / "metrics.jsonl").exists()
    with monkeypatch.context() as patch:
        interrupt_after(patch, 7, signal.SIGINT, signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            loop.train(config(), workdir)
    assert curves.read_metrics(workdir)[0]["step"] == 6
    assert best_step(workdir) == 6


def test_checkpoints_without_their_log(finished, tmp_path, capsys):
    """A run whose checkpoints were copied elsewhere without the log evaluates its last epoch. The
    epoch's line has no means of the training."""
    workdir = epath.Path(tmp_path / "run")
    shutil.copytree(finished, workdir)
    for name in ("metrics.jsonl", "steps.jsonl", "curves.html", "curves.png"):
        (workdir / name).unlink()
    loop.train(config(), workdir)
    (line,) = curves.read_metrics(workdir)
    assert (line["epoch"], line["step"]) == (2, 12)
    assert line["val_top1"] == curves.read_metrics(finished)[1]["val_top1"]
    assert not {"loss", "train_top1", "learning_rate"} & line.keys()
    assert "epoch   2/2  val top-1" in capsys.readouterr().out
    assert (workdir / "curves.html").exists()
    assert (workdir / "curves.png").exists()


def test_a_finished_run_is_left_alone(finished_copy, monkeypatch):
    def contents():
        files = (path for path in Path(finished_copy).rglob("*") if path.is_file())
        return {path: path.read_bytes() for path in files if path.name != ".lock"}

    before = contents()
    monkeypatch.setattr(loop.StepWatch, "add", lambda *args: pytest.fail("trained"))
    loop.train(config(), finished_copy)
    assert contents() == before


def test_averaging_cannot_begin_in_a_resumed_run(finished_copy):
    with pytest.raises(InputError, match=r"another configuration \(ema 0.0 -> 0.5\)"):
        loop.train(config(ema=0.5), finished_copy)


def test_arrays_of_another_shape_are_refused(finished):
    state = new_state()
    params = state.params | {"fc.bias": jnp.zeros(11)}
    with (
        TrainCheckpoints(finished, keep=2) as checkpoints,
        pytest.raises(InputError, match=r"checkpoints/12 cannot be read: .*shape"),
    ):
        checkpoints.restore_last(state._replace(params=params))


def test_log_lines_after_the_checkpoint_are_dropped(finished, tmp_path):
    workdir = epath.Path(tmp_path / "run")
    shutil.copytree(finished, workdir)
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "step": 18}\n{"epoch": 4, "st')
    loop.train(config(num_epochs=2), workdir)
    assert len(curves.read_metrics(workdir)) == 2


def test_killed_while_the_workdir_was_opened(tmp_path, monkeypatch):
    """A kill at any write of open_workdir leaves a directory from which the next start succeeds."""
    card = ModelCard("resnet_20_bn", 10, Preprocessing(), {})
    for die_at in (0, 1):
        workdir, count = epath.Path(tmp_path / str(die_at)), iter(range(9))
        workdir.mkdir()

        def write(path, content, die_at=die_at, count=count):
            if next(count) == die_at:
                raise KeyboardInterrupt
            write_atomically(path, content)

        with monkeypatch.context() as patch:
            patch.setattr("an_jax.training.workdir.write_atomically", write)
            patch.setattr("an_jax.checkpoint.write_atomically", write)
            with pytest.raises(KeyboardInterrupt):
                open_workdir(workdir, config(), card)
        open_workdir(workdir, config(), card)
        assert ModelCard.read(workdir) == card


def test_a_run_that_saved_nothing_does_not_pin_its_configuration(tmp_path):
    workdir = epath.Path(tmp_path)
    card = ModelCard("resnet_20_bn", 10, Preprocessing(), {})
    open_workdir(workdir, config(), card)
    open_workdir(workdir, config(seed=1), card)
    assert json.loads((workdir / "config.json").read_text())["seed"] == 1


def test_brackets_in_the_name_of_a_run(tmp_path):
    """They are no pattern: the run's own checkpoints count."""
    workdir = epath.Path(tmp_path / "run[1]")
    workdir.mkdir()
    card = ModelCard("resnet_20_bn", 10, Preprocessing(), {})
    open_workdir(workdir, config(), card)
    (workdir / "checkpoints" / "6").mkdir(parents=True)
    with pytest.raises(InputError, match="holds a run of another configuration"):
        open_workdir(workdir, config(seed=1), card)
