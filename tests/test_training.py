"""Training runs in this process: what they write, and how they resume."""

import dataclasses
import json
import os
import shutil
import signal
import time

import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from an_jax import load_model, parallel
from an_jax.checkpoint import ModelCard, best_step
from an_jax.data.sets.class_index import imagenet_wnids
from an_jax.data.sets.real_labels import match_labels
from an_jax.data.sources import ImageList
from an_jax.data.tf_on_cpu import tf
from an_jax.errors import InputError
from an_jax.evaluation.metrics import real_accuracy
from an_jax.files import write_atomically
from an_jax.training import build, curves, loop, profile, validation
from an_jax.training.checkpoints import TrainCheckpoints
from an_jax.training.log import epoch_metrics, is_best
from an_jax.training.log_files import read_lines
from an_jax.training.messages import describe_epoch
from an_jax.training.workdir import open_workdir
from an_jax.zoo import Preprocessing
from tests import fake_archives
from tests.digits_runs import assert_same_end, config, new_state
from tests.pictures import SPOILT
from tests.small_model import random_split


def test_a_run_writes_metrics_curves_and_the_best_model(finished):
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
    """steps.jsonl has a line for every four steps and at the end of each epoch. The metrics of an
    epoch are the means of its lines."""
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
    assert all(0 < line["input_wait"] == line["input_wait_worst"] < 1 for line in lines)


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


def copy_after_first_epoch(finished, tmp_path):
    """A copy of the finished run as it was after its first epoch's last step."""
    workdir = epath.Path(tmp_path / "run")
    shutil.copytree(finished, workdir)
    shutil.rmtree(workdir / "checkpoints/12")
    return workdir


def interrupt_after(monkeypatch, last_step, *signals):
    """Makes the next training receive signals after a step."""
    add = loop.StepWatch.add

    def interrupted(watch, epoch, step, *args):
        add(watch, epoch, step, *args)
        if step == last_step:
            for number in signals:
                os.kill(os.getpid(), number)

    monkeypatch.setattr(loop.StepWatch, "add", interrupted)


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
    for name in ("metrics.jsonl", "steps.jsonl", "curves.png"):
        (workdir / name).unlink()
    loop.train(config(), workdir)
    (line,) = curves.read_metrics(workdir)
    assert (line["epoch"], line["step"]) == (2, 12)
    assert line["val_top1"] == curves.read_metrics(finished)[1]["val_top1"]
    assert not {"loss", "train_top1", "learning_rate"} & line.keys()
    assert "epoch   2/2  val top-1" in capsys.readouterr().out
    assert (workdir / "curves.png").exists()


def test_a_finished_run_is_left_alone(finished, monkeypatch):
    metrics = (finished / "metrics.jsonl").read_text()
    monkeypatch.setattr(loop.StepWatch, "add", lambda *args: pytest.fail("trained"))
    loop.train(config(), finished)
    assert (finished / "metrics.jsonl").read_text() == metrics


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


def test_what_does_not_end_a_run(tmp_path, monkeypatch, capsys):
    """Training continues after corrupt images and failed writes of curves.png and TensorBoard's
    log. It also writes a profile, and reads the next epoch's images before a validation ends. It
    goes on while the best weights are written."""
    begun, batches, read = [], [], loop.epoch_batches
    validate, wait_for_best = validation.Validation.__call__, TrainCheckpoints.wait_for_best

    def fail(*args):
        raise tf.errors.UnavailableError(None, None, "HTTP response code 503")

    def read_epoch(*args, check):
        begun.append(args[-2])
        for batch in read(*args, check=check):
            batches.append(batch)
            yield batch

    def wait_for(condition):
        deadline = time.monotonic() + 30
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert condition()

    def validate_late(*args):
        wait_for(lambda: begun == [0, 1])
        return validate(*args)

    def wait_longer(*args):
        wait_for(lambda: len(batches) > 7)  # the first one of the second epoch is read ahead
        wait_for_best(*args)

    monkeypatch.setattr(loop, "epoch_batches", read_epoch)
    monkeypatch.setattr(validation.Validation, "__call__", validate_late)
    monkeypatch.setattr(TrainCheckpoints, "wait_for_best", wait_longer)

    monkeypatch.setattr(loop, "plot_curves", fail)
    monkeypatch.setattr(tf.io.TFRecordWriter, "flush", fail)
    opened = loop.open_train_set("digits", "")
    encoded = list(opened.source.encoded)
    encoded[5], encoded[900] = SPOILT["text"], SPOILT["truncated_png"]
    source = ImageList(opened.source.filenames, opened.source.labels, encoded=encoded)
    spoilt = dataclasses.replace(opened, source=source)
    monkeypatch.setattr(loop, "open_train_set", lambda *args: spoilt)
    monkeypatch.setattr(profile, "FIRST_STEP", 1)
    workdir = epath.Path(tmp_path / "run")
    loop.train(config(profile_steps=2), workdir)
    assert [line["skipped"] for line in curves.read_metrics(workdir)] == [2, 2]
    assert [line["step"] for line in read_lines(workdir / "steps.jsonl")] == [3, 4, 6, 8, 12]
    printed = capsys.readouterr()
    assert "skipped: train/0005.png is corrupt or no image" in printed.err
    assert "2 images skipped" in printed.out
    reason = (
        "cannot be written: HTTP response code 503; wait until the network and the storage work"
    )
    assert printed.out.count(f"warning: curves.png {reason}") == 2
    assert printed.out.count(f"warning: TensorBoard's log {reason}") == 1
    assert printed.out.count("profile written to") == 1
    (trace,) = (tmp_path / "run/profile").rglob("*.xplane.pb")
    assert b"step_num" in trace.read_bytes()


def test_a_run_that_saved_nothing_does_not_pin_its_configuration(tmp_path):
    workdir = epath.Path(tmp_path)
    card = ModelCard("resnet_20_bn", 10, Preprocessing(), {})
    open_workdir(workdir, config(), card)
    open_workdir(workdir, config(seed=1), card)
    assert json.loads((workdir / "config.json").read_text())["seed"] == 1


def test_the_best_of_a_run_is_kept_beside_the_last(tmp_path):
    """The best checkpoint by val_top1 and the best by real_top1 are kept, and the last two for
    resuming."""
    state, workdir = new_state(), epath.Path(tmp_path)
    scores = [(0.1, 0.3), (0.5, 0.2), (0.2, 0.9), (0.4, 0.1)]
    with TrainCheckpoints(workdir, keep=2) as checkpoints:
        for step, (val, real) in enumerate(scores, start=1):
            checkpoints.save(step, state)
            checkpoints.save_best(step, state, {"val_top1": val, "real_top1": real})
    assert {path.name for path in (workdir / "checkpoints").iterdir()} == {"3", "4"}
    assert {path.name for path in (workdir / "best").iterdir()} == {"2", "3"}
    assert best_step(workdir) == 2


def test_an_interrupted_profile_is_written(tmp_path, capsys):
    with profile.Profile(tmp_path, 2, lambda: None) as trace:
        trace.before_step(profile.FIRST_STEP)
    assert "profile written to" in capsys.readouterr().out
    assert list(tmp_path.rglob("*.xplane.pb"))


def open_imagenet(archives, tmp_path):
    """ImageNet with ReaL's labels; its validation images are the training images too."""
    for part in ("train", "val"):
        shutil.copytree(archives / "imagenet-1k/val", tmp_path / "imagenet-1k" / part)
    shutil.copy(archives / "imagenet-1k/real.json", tmp_path / "imagenet-1k")
    return loop.open_train_set("imagenet", str(tmp_path))


def test_validation_with_real_labels(tmp_path, archives, monkeypatch):
    """ReaL's accuracy uses ReaL's labels, which are matched to the images by file name."""
    seen = []

    def spy(classes, label_sets, k):
        seen.append(label_sets)
        return real_accuracy(np.array([[7] * 5] * len(classes)), label_sets, k)

    monkeypatch.setattr(validation, "real_accuracy", spy)
    card = ModelCard("resnet_20_bn", 1000, Preprocessing(image_size=8), {})
    split, train_set = random_split(), open_imagenet(archives, tmp_path)
    validate = validation.Validation(split.definition, card, train_set, 16, parallel.make_mesh())
    scores = validate(*parallel.replicate((split.params, split.batch_stats), parallel.make_mesh()))
    in_order = sorted(fake_archives.REAL_LABELS)
    assert sorted(map(list, seen[0])) == in_order
    with_labels = [labels for labels in in_order if labels]
    assert scores["real_top1"] == np.mean([7 in labels for labels in with_labels])
    assert scores.keys() == {"val_top1", "val_top5", "real_top1", "real_top5"}


@pytest.mark.parametrize("flat", [False, True])
def test_file_names_of_hugging_face(tmp_path, archives, flat):
    """They end in the class, which labels the images where there are no class folders."""
    expected = open_imagenet(archives, tmp_path).val_source
    for part in ("train", "val"):
        for name in expected.filenames:
            path = tmp_path / "imagenet-1k" / part / name
            folder = path.parents[1] if flat else path.parent
            path.rename(folder / f"{path.stem}_{path.parent.name}.JPEG")
            if flat and not any(path.parent.iterdir()):
                path.parent.rmdir()
    train_set = loop.open_train_set("imagenet", str(tmp_path))
    for source in (train_set.source, train_set.val_source):
        assert sorted(source.labels) == sorted(expected.labels)
        for name, label in zip(source.filenames, source.labels, strict=True):
            assert name.endswith(f"_{imagenet_wnids()[label]}.JPEG")
    matched = match_labels(train_set.val_source.filenames, train_set.real_labels)
    assert sorted(map(list, matched)) == sorted(fake_archives.REAL_LABELS)


def test_other_file_names_do_without_real_labels(tmp_path, archives, capsys):
    open_imagenet(archives, tmp_path)
    for path in (tmp_path / "imagenet-1k/val").glob("*/*"):
        path.rename(path.with_name(path.name[-8:]))
    assert loop.open_train_set("imagenet", str(tmp_path)).real_labels is None
    assert "note: ReaL accuracy is not measured: " in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_with_real_labels(tmp_path, archives, capsys):
    open_imagenet(archives, tmp_path)
    few = {"batch_size": 16, "num_epochs": 1, "warmup_epochs": 0}
    loop.train(config(dataset="imagenet", data_dir=str(tmp_path), **few), tmp_path / "run")
    (line,) = curves.read_metrics(epath.Path(tmp_path / "run"))
    assert {"val_top1", "val_top5", "real_top1", "real_top5"} <= line.keys()
    assert "  ReaL " in capsys.readouterr().out


STEPS = [
    {"steps": 3, "loss": 2.0, "top1": 0.5, "images_per_second": 0.0, "input_wait": 0.5},
    {"steps": 1, "loss": 4.0, "top1": 0.1, "images_per_second": 7.0, "input_wait": 0.1},
]


def test_metrics_of_an_epoch():
    steps = [line | {"learning_rate": rate} for line, rate in zip(STEPS, (0.2, 0.1), strict=True)]
    metrics = epoch_metrics(3, 9, steps, {"val_top1": 0.25, "real_top1": 0.3}, skipped=4)
    assert metrics == {
        "epoch": 3,
        "step": 9,
        "loss": 2.5,
        "train_top1": pytest.approx(0.4),
        "input_wait": pytest.approx(0.4),
        "val_top1": 0.25,
        "real_top1": 0.3,
        "learning_rate": 0.1,
        "images_per_second": 7.0,
        "skipped": 4,
    }
    assert describe_epoch(metrics, 12, 1.5) == (
        "epoch   3/12  loss 2.5000  train top-1 40.0 %  val top-1 25.0 %  ReaL 30.0 %  7 img/s  "
        "1.5 min left  4 images skipped"
    )


def test_which_epoch_is_the_best():
    """An epoch is the best if it equals or exceeds all others by val_top1 or by real_top1."""
    epochs = [{"val_top1": 0.5, "real_top1": 0.6}, {"val_top1": 0.4, "real_top1": 0.7}]
    assert is_best({"val_top1": 0.1}, [])
    assert is_best({"val_top1": 0.5, "real_top1": 0.6, "val_top5": 0.1}, epochs)
    assert is_best({"val_top1": 0.4, "real_top1": 0.7}, epochs)
    assert not is_best({"val_top1": 0.4, "real_top1": 0.6, "val_top5": 1.0}, epochs)


def test_curves_of_several_runs(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    picture = tmp_path / "curves.png"
    assert curves.main([str(finished), str(finished), "--output=~/curves.png"]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert curves.main([str(tmp_path), "--output", str(picture)]) == 1
    assert "is not a training run" in capsys.readouterr().err
    (tmp_path / "thesis.tex").write_text("Attention")
    assert curves.main([str(finished), "--output", str(tmp_path / "thesis.tex")]) == 1
    assert "thesis.tex exists and is not a PNG" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").read_text() == "Attention"
