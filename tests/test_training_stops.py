"""Training runs in this process: errors that stop them, and files that these leave alone."""

import dataclasses
import errno
import json
import shutil
from unittest import mock

import jax
import jax.numpy as jnp
import pytest
from etils import epath

from an_jax.checkpoint import ModelCard
from an_jax.data.sources import ImageList
from an_jax.data.tf_on_cpu import tf
from an_jax.errors import InputError
from an_jax.training import build, loop
from an_jax.training.checkpoints import TrainCheckpoints
from an_jax.training.validation import Validation
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
        ({"eval_sets": "digits-noize"}, "unknown test set 'digits-noize'; the nearest is digits-n"),
        ({"eval_sets": "imagenet-a"}, "eval_sets: imagenet-a has 1000 classes, the model has 10"),
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


def test_a_lack_of_device_memory_names_the_field(finished, tmp_path, monkeypatch):
    def run_out(*args):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")

    with monkeypatch.context() as patch:
        patch.setattr(build, "make_train_step", lambda *args, **options: run_out)
        message = r"out of device memory: lower --config.batch_size, which is 240 \(RESOURCE_EX"
        with pytest.raises(InputError, match=message):
            loop.train(config(), tmp_path / "new")
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run/metrics.jsonl").unlink()  # the last epoch is evaluated first
    monkeypatch.setattr(Validation, "__call__", run_out)
    for size, message in ((120, "eval_batch_size, which is 120 "), (0, "eval_batch_size, .* 240 ")):
        with pytest.raises(InputError, match=f"lower --config.{message}"):
            loop.train(config(eval_batch_size=size), tmp_path / "run")


def test_a_run_on_other_data_is_refused(finished_copy, monkeypatch):
    opened = loop.open_train_set("digits", "")
    source = opened.source
    fewer = ImageList(source.filenames[:-1], source.labels[:-1], encoded=source.encoded[:-1])
    less = dataclasses.replace(opened, source=fewer)
    monkeypatch.setattr(loop, "open_train_set", lambda *args: less)
    before = (finished_copy / "model.json").read_text()
    with pytest.raises(InputError, match="holds a run on other data: the number of images"):
        loop.train(config(), finished_copy)
    assert (finished_copy / "model.json").read_text() == before


def test_a_run_of_another_configuration_is_refused(finished_copy):
    before = (finished_copy / "config.json").read_text()
    with pytest.raises(InputError, match=r"another configuration \(seed 0 -> 1\)"):
        loop.train(config(seed=1), finished_copy)
    assert (finished_copy / "config.json").read_text() == before


def test_a_run_from_before_a_field_existed_resumes(finished, tmp_path, capsys):
    """A field that config.json or model.json lacks has its default."""
    workdir = epath.Path(tmp_path / "run")
    shutil.copytree(finished, workdir)
    fields = json.loads((workdir / "config.json").read_text())
    del fields["mixup"], fields["keep_checkpoints"]
    (workdir / "config.json").write_text(json.dumps(fields))
    with pytest.raises(InputError, match=r"another configuration \(mixup 0.0 -> 0.2\)"):
        loop.train(config(mixup=0.2), workdir)
    card = ModelCard.read(workdir)
    source = {"trained_on": card.source["trained_on"]}
    dataclasses.replace(card, source=source).write(workdir)
    loop.train(config(), workdir)
    assert "resuming after step 12" in capsys.readouterr().out
    assert json.loads((workdir / "config.json").read_text())["mixup"] == 0.0
    assert ModelCard.read(workdir) == card


def test_a_checkpoint_is_refused_as_a_workdir(tmp_path, finished):
    shutil.copy(finished / "model.json", tmp_path)
    with pytest.raises(InputError, match="holds a checkpoint, not a training run"):
        loop.train(config(), tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.json", "is not the configuration of a training run"),
        ("metrics.jsonl", "has a metrics.jsonl but no config.json"),
        ("checkpoints", "has a checkpoints but no config.json"),
    ],
)
def test_a_directory_of_another_project_is_not_changed(tmp_path, name, message):
    (tmp_path / name).write_text('{"hidden_size": 768}\n')
    with pytest.raises(InputError, match=message):
        loop.train(config(), tmp_path)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {name: '{"hidden_size": 768}\n'}


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
    """A lack of space is reported before anything is written. The earlier checkpoint stays. The
    advice fits the error."""
    state = new_state()
    with TrainCheckpoints(epath.Path(tmp_path), keep=2) as checkpoints:
        assert checkpoints.describe_last() == "no checkpoint is saved yet"
        checkpoints.save(1, state)
        checkpoints.wait()
        usage = shutil.disk_usage(tmp_path)._replace(free=1_500_000)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
        message = r"cannot write to .*: 2 MB needed, 2 MB free; the last good checkpoint is step 1"
        with pytest.raises(InputError, match=f"{message}: make room, then run the same command"):
            checkpoints.save(2, state)
        monkeypatch.undo()
        for error, advice in (
            (OSError(errno.EIO, "Input/output error"), "step 1: wait until the network and the st"),
            (tf.errors.UnavailableError(None, None, "code 503"), "step 1: wait until the network"),
            (tf.errors.PermissionDeniedError(None, None, "code 403"), "step 1: change the permis"),
            (ValueError("OS error 122: EDQUOT Disk quota exceeded"), "step 1: make room, then run"),
            (ValueError("/no space left/0.zarr: lost"), "step 1: run the same command again"),
        ):
            monkeypatch.setattr(checkpoints._last, "save", mock.Mock(side_effect=error))
            with pytest.raises(InputError, match=advice):
                checkpoints.save(2, state)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["1"]
