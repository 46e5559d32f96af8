"""Training runs in this process: errors that stop them, and files that these leave alone."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import pytest
from etils import epath

from an_jax.data.sources import ImageList
from an_jax.errors import InputError
from an_jax.training import build, loop
from an_jax.training.checkpoints import TrainCheckpoints
from tests.digits_runs import assert_same_end, config, new_state


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            {"learning_rate": 1e12},
            r"the loss is (nan|inf) at step \d+ .*lower the learning rate; no checkpoint is saved",
            marks=pytest.mark.slow,
        ),
        ({"dataset": "digit"}, "unknown dataset 'digit'; choose one of imagenet, folder, digits"),
        ({"dataset": "folder"}, "no data directory given: .* --config.data_dir=DATA"),
        ({"dataset": "imagenet", "data_dir": "/none"}, "no data directory /none"),
        ({"batch_size": 12}, "batch_size must be a multiple of the number of devices, 8"),
        ({"init_from": "/none"}, "no checkpoint at /none"),
    ],
)
def test_a_bad_configuration_stops_with_a_reason(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        loop.train(config(**changes), tmp_path / "run")


def test_a_loss_that_becomes_nan_is_not_saved(finished, tmp_path, monkeypatch):
    """A NaN loss is not saved, even if a checkpoint is due. The error names the last good one."""
    workdir = epath.Path(tmp_path / "run")
    shutil.copytree(finished, workdir)
    shutil.rmtree(workdir / "checkpoints/12")
    make = build.make_train_step

    def spoilt(*args, **options):
        step = make(*args, **options)

        def run(state, images, labels):
            if int(state.step) == 8:
                state = state._replace(params=jax.tree.map(lambda p: p * jnp.nan, state.params))
            return step(state, images, labels)

        return run

    monkeypatch.setattr(build, "make_train_step", spoilt)
    message = r"the loss is nan at step 9 \(epoch 2\): .*the last good checkpoint is step 6"
    with pytest.raises(InputError, match=message):
        loop.train(config(checkpoint_steps=9), workdir)


def test_a_run_on_other_data_is_refused(finished, monkeypatch):
    opened = loop.open_train_set("digits", "")
    source = opened.source
    fewer = ImageList(source.filenames[:-1], source.labels[:-1], encoded=source.encoded[:-1])
    less = dataclasses.replace(opened, source=fewer)
    monkeypatch.setattr(loop, "open_train_set", lambda *args: less)
    before = (finished / "model.json").read_text()
    with pytest.raises(InputError, match="holds a run on other data: the number of images"):
        loop.train(config(), finished)
    assert (finished / "model.json").read_text() == before


def test_a_run_of_another_configuration_is_refused(finished):
    before = (finished / "config.json").read_text()
    with pytest.raises(InputError, match=r"another configuration \(seed 0 -> 1\)"):
        loop.train(config(seed=1), finished)
    assert (finished / "config.json").read_text() == before


def test_a_checkpoint_is_refused_as_a_workdir(tmp_path, finished):
    shutil.copy(finished / "model.json", tmp_path)
    with pytest.raises(InputError, match="holds a checkpoint, not a training run"):
        loop.train(config(), tmp_path)


def test_a_damaged_step_is_named(finished, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    shutil.rmtree(workdir / "checkpoints/12/optimizer")
    with pytest.raises(InputError, match=r"checkpoints/12 cannot be read: .*remove it to resume"):
        loop.train(config(), workdir)
    shutil.rmtree(workdir / "checkpoints/12")
    loop.train(config(), workdir)
    assert_same_end(epath.Path(workdir), finished)


def test_a_damaged_configuration_is_named(finished, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    (workdir / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json is damaged"):
        loop.train(config(), workdir)


def test_an_unwritable_workdir_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        loop.train(config(), tmp_path / "file" / "run")


def test_a_disk_that_is_too_full_for_a_checkpoint(tmp_path, monkeypatch):
    """A lack of space is reported before anything is written. The earlier checkpoint stays."""
    state = new_state()
    with TrainCheckpoints(epath.Path(tmp_path), keep=2) as checkpoints:
        assert checkpoints.describe_last() == "no checkpoint is saved yet"
        checkpoints.save(1, state)
        checkpoints.wait()
        usage = shutil.disk_usage(tmp_path)._replace(free=1_500_000)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
        message = r"cannot write to .*: 2 MB needed, 2 MB free; the last good checkpoint is step 1"
        with pytest.raises(InputError, match=message):
            checkpoints.save(2, state)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["1"]
