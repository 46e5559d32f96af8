"""Training runs in this process: what they leave, and how they go on."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from an_jax import create_model, functional, load_model
from an_jax.checkpoint import ModelCard, best_step
from an_jax.data.sources import ImageList
from an_jax.data.tf_on_cpu import tf
from an_jax.errors import InputError
from an_jax.evaluation.metrics import real_accuracy
from an_jax.files import write_whole
from an_jax.training import curves, loop, optimizer, validation
from an_jax.training.checkpoints import TrainCheckpoints
from an_jax.training.log import read_lines
from an_jax.training.step import init_state
from an_jax.training.workdir import open_workdir
from tests import fake_archives
from tests.digits_runs import assert_same_end, config
from tests.pictures import SPOILT


def test_a_run_leaves_metrics_curves_and_the_best_model(finished):
    epochs = curves.read_metrics(finished)
    assert [(e["epoch"], e["step"]) for e in epochs] == [(1, 6), (2, 12)]
    assert epochs[1]["loss"] < epochs[0]["loss"]
    assert (finished / "curves.png").read_bytes().startswith(b"\x89PNG")
    best = max(epochs, key=lambda e: (e["val_top1"], e["step"]))["step"]
    assert best_step(finished) == best
    model = load_model(finished)
    assert model(jnp.zeros((1, 16, 16, 3))).shape == (1, 10)
    assert json.loads((finished / "config.json").read_text())["batch_size"] == 240


def test_lines_about_steps(finished):
    """One each four steps, and one where an epoch ends; the epoch's are their means."""
    lines = read_lines(finished / "steps.jsonl")
    assert [(s["epoch"], s["step"], s["steps"]) for s in lines] == [
        (1, 4, 4),
        (1, 6, 2),
        (2, 8, 2),
        (2, 12, 4),
    ]
    first = curves.read_metrics(finished)[0]
    assert first["loss"] == pytest.approx((4 * lines[0]["loss"] + 2 * lines[1]["loss"]) / 6)
    assert first["learning_rate"] == lines[1]["learning_rate"]
    assert all(line["images_per_second"] > 0 for line in lines)


def test_tensorboard_reads_the_scalars(finished):
    (file,) = (finished / "tensorboard").iterdir()
    events = [
        tf.compat.v1.Event.FromString(record.numpy())
        for record in tf.data.TFRecordDataset(str(file))
    ]
    assert events[0].file_version == "brain.Event:2"
    scalars = {
        (value.tag, event.step): value.simple_value
        for event in events
        for value in event.summary.value
    }
    last = curves.read_metrics(finished)[-1]
    assert scalars["val_top1", 12] == pytest.approx(last["val_top1"])
    assert scalars["train/loss", 12] == pytest.approx(
        read_lines(finished / "steps.jsonl")[-1]["loss"]
    )


def interrupt_after(monkeypatch, step):
    """Makes the next training end as by Ctrl-C after some steps."""
    update = loop.Run._update

    def interrupted(run, *args):
        update(run, *args)
        if run._step == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop.Run, "_update", interrupted)


def test_interrupted_and_resumed_in_the_middle_of_an_epoch(finished, tmp_path, monkeypatch, capsys):
    """Ends with the same bits; the lines of the log, too, are those of a run in one piece."""
    changes = {"checkpoint_steps": 4, "log_steps": 2}  # which change nothing in what is trained
    with monkeypatch.context() as patch:
        interrupt_after(patch, 9)
        with pytest.raises(KeyboardInterrupt):
            loop.train(config(**changes), tmp_path / "run")
    loop.train(config(**changes), tmp_path / "run")
    assert "going on after step 8" in capsys.readouterr().out
    assert_same_end(tmp_path / "run", finished)
    steps = [line["step"] for line in read_lines(epath.Path(tmp_path / "run/steps.jsonl"))]
    assert steps == [2, 4, 6, 8, 10, 12]
    for found, expected in zip(
        *map(curves.read_metrics, (epath.Path(tmp_path / "run"), finished)), strict=True
    ):
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-6)
        assert found["val_top1"] == expected["val_top1"]


def test_an_epoch_that_was_not_evaluated_any_more(finished, tmp_path, monkeypatch):
    """Trained and saved, then killed: only the evaluation is made up for."""

    def die(*args):
        raise KeyboardInterrupt

    workdir = epath.Path(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(loop.Validation, "__call__", die)
        with pytest.raises(KeyboardInterrupt):
            loop.train(config(), workdir)
    assert not (workdir / "metrics.jsonl").exists()
    with pytest.raises(InputError, match="holds no evaluated epoch yet"):
        load_model(workdir)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 7)
        with pytest.raises(KeyboardInterrupt):
            loop.train(config(), workdir)
    assert curves.read_metrics(workdir)[0]["step"] == 6
    assert best_step(workdir) == 6


def test_a_finished_run_is_left_alone(finished, monkeypatch):
    metrics = (finished / "metrics.jsonl").read_text()
    monkeypatch.setattr(loop.Run, "_update", lambda *args: pytest.fail("trained"))
    loop.train(config(), finished)
    assert (finished / "metrics.jsonl").read_text() == metrics


def test_what_was_logged_but_not_saved_is_dropped(finished, tmp_path):
    workdir = epath.Path(tmp_path / "run")
    shutil.copytree(finished, workdir)
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "step": 18}\n{"epoch": 4, "st')
    loop.train(config(num_epochs=2), workdir)
    assert len(curves.read_metrics(workdir)) == 2


def test_a_step_is_compiled_once_also_after_a_resume(finished, tmp_path, monkeypatch):
    workdir, steps, make = tmp_path / "run", [], loop.make_train_step
    shutil.copytree(finished, workdir)
    shutil.rmtree(workdir / "checkpoints/12")

    def kept(*args, **options):
        steps.append(make(*args, **options))
        return steps[-1]

    monkeypatch.setattr(loop, "make_train_step", kept)
    loop.train(config(), workdir)
    assert steps[0]._cache_size() == 1


def test_killed_while_the_workdir_was_opened(tmp_path, monkeypatch):
    """At any of its writes: the next start is not confused by what it finds."""
    card = ModelCard("resnet_20_bn", 10, loop.zoo.Preprocessing(), {})
    for die_at in (0, 1):
        workdir, count = epath.Path(tmp_path / str(die_at)), iter(range(9))

        def write(path, content, die_at=die_at, count=count):
            if next(count) == die_at:
                raise KeyboardInterrupt
            write_whole(path, content)

        with monkeypatch.context() as patch:
            patch.setattr("an_jax.training.workdir.write_whole", write)
            patch.setattr("an_jax.checkpoint.write_whole", write)
            with pytest.raises(KeyboardInterrupt):
                open_workdir(workdir, config(), card)
        open_workdir(workdir, config(), card)
        assert ModelCard.read(workdir) == card


def test_a_picture_that_cannot_be_written_ends_no_training(tmp_path, capsys):
    (tmp_path / "run/curves.png").mkdir(parents=True)
    loop.train(config(num_epochs=1, warmup_epochs=0), tmp_path / "run")
    assert "curves.png cannot be written" in capsys.readouterr().out


def test_a_run_that_saved_nothing_does_not_pin_its_configuration(tmp_path):
    workdir = epath.Path(tmp_path)
    card = ModelCard("resnet_20_bn", 10, loop.zoo.Preprocessing(), {})
    open_workdir(workdir, config(), card)
    open_workdir(workdir, config(seed=1), card)
    assert json.loads((workdir / "config.json").read_text())["seed"] == 1


def test_the_best_of_a_run_is_kept_beside_the_last(tmp_path):
    """By either ranking, whatever comes after; and the last two to go on from."""
    split = functional.split(create_model("resnet_20_bn", num_classes=10))
    state = init_state(split, optimizer.sgd(0.1, 0.9, 1e-4))
    workdir = epath.Path(tmp_path)
    scores = [(0.1, 0.3), (0.5, 0.2), (0.2, 0.9), (0.4, 0.1)]
    with TrainCheckpoints(workdir, keep=2) as checkpoints:
        for step, (val, real) in enumerate(scores, start=1):
            checkpoints.save(step, state)
            checkpoints.save_best(step, state, {"val_top1": val, "real_top1": real})
    assert {path.name for path in (workdir / "checkpoints").iterdir()} == {"3", "4"}
    assert {path.name for path in (workdir / "best").iterdir()} == {"2", "3"}
    assert best_step(workdir) == 2


def test_a_profile_on_request(tmp_path, capsys):
    loop.train(
        config(batch_size=96, num_epochs=1, warmup_epochs=0, profile_steps=2), tmp_path / "run"
    )
    assert "profile written to" in capsys.readouterr().out
    assert list((tmp_path / "run/profile").rglob("*.xplane.pb"))


def test_corrupt_images_are_counted(tmp_path, monkeypatch, capsys):
    opened = loop.open_train_set("digits", "")
    encoded = list(opened.source.encoded)
    encoded[5], encoded[900] = SPOILT["text"], SPOILT["truncated_png"]
    source = ImageList(opened.source.filenames, opened.source.labels, encoded=encoded)
    spoilt = loop.dataclasses.replace(opened, source=source)
    monkeypatch.setattr(loop, "open_train_set", lambda *args: spoilt)
    loop.train(config(num_epochs=1, warmup_epochs=0), tmp_path / "run")
    assert curves.read_metrics(epath.Path(tmp_path / "run"))[0]["skipped"] == 2
    printed = capsys.readouterr()
    assert "skipped: train/0005.png is corrupt or no image" in printed.err
    assert "2 images skipped" in printed.out


def test_imagenet_with_real_labels(tmp_path, archives, monkeypatch):
    """ReaL's accuracy is logged beside the plain one, and is that of its labels."""
    for part in ("train", "val"):
        shutil.copytree(archives / "imagenet-1k/val", tmp_path / "imagenet-1k" / part)
    shutil.copy(archives / "imagenet-1k/real.json", tmp_path / "imagenet-1k")
    seen = []

    def spy(classes, label_sets, k):
        seen.append(label_sets)
        return real_accuracy(np.array([[7] * 5] * len(classes)), label_sets, k)

    monkeypatch.setattr(validation, "real_accuracy", spy)
    workdir = epath.Path(tmp_path / "run")
    few = {"batch_size": 16, "num_epochs": 1, "warmup_epochs": 0}
    loop.train(config(dataset="imagenet", data_dir=str(tmp_path), **few), workdir)
    (line,) = curves.read_metrics(workdir)
    in_order = sorted(fake_archives.REAL_LABELS)
    assert sorted(map(list, seen[0])) == in_order
    with_labels = [labels for labels in in_order if labels]
    assert line["real_top1"] == np.mean([7 in labels for labels in with_labels])
    assert {"val_top1", "val_top5", "real_top5"} <= line.keys()


def test_curves_of_several_runs(finished, tmp_path, capsys):
    picture = tmp_path / "curves.png"
    assert curves.main([str(finished), str(finished), "--output", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert curves.main([str(tmp_path), "--output", str(picture)]) == 1
    assert "is no training run" in capsys.readouterr().err
