"""Training runs in this process: what they write."""

import dataclasses
import json
import time

import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

import evaluate
from an_jax import load_model
from an_jax.checkpoint import ModelCard, best_step, checkpoint_name
from an_jax.data.sources import ImageList
from an_jax.data.tf_on_cpu import tf
from an_jax.errors import InputError
from an_jax.training import curves, loop, profile, validation
from an_jax.training.checkpoints import TrainCheckpoints
from an_jax.training.log import epoch_metrics, is_best
from an_jax.training.log_files import read_lines
from an_jax.training.messages import describe_epoch
from convert import bridge
from tests.digits_runs import config, new_state
from tests.pictures import SPOILT
from tests.small_model import CARD, save


def test_a_run_writes_metrics_curves_and_the_best_model(finished):
    epochs = curves.read_metrics(finished)
    assert [(e["epoch"], e["step"]) for e in epochs] == [(1, 6), (2, 12)]
    assert epochs[1]["loss"] < epochs[0]["loss"]
    assert (finished / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "<title>Training curves of digits</title>" in (finished / "curves.html").read_text()
    best = max(epochs, key=lambda e: (e["val_top1"], e["step"]))["step"]
    assert best_step(finished) == best
    model = load_model(finished)
    assert model(jnp.zeros((1, 16, 16, 3))).shape == (1, 10)
    assert json.loads((finished / "config.json").read_text())["batch_size"] == 240


def test_any_step_of_a_run_is_a_checkpoint(finished, tmp_path):
    arguments = ["--checkpoint", str(finished / "checkpoints"), "--output_dir", str(tmp_path)]
    assert evaluate.main([*arguments, "--datasets", "digits", "--batch_size", "240"]) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    accuracies = {result["model"]: (result["top1"], result["top5"]) for result in results}
    assert accuracies == {
        f"{finished.name}-checkpoints-{epoch['step']}": (epoch["val_top1"], epoch["val_top5"])
        for epoch in curves.read_metrics(finished)
    }
    best, images = finished / "best" / str(best_step(finished)), jnp.ones((1, 16, 16, 3))
    np.testing.assert_array_equal(load_model(best)(images), load_model(finished)(images))
    pths = [tmp_path / name / "x.pth" for name in ("best", "run")]
    for checkpoint, pth in zip((best, finished), pths, strict=True):
        bridge.to_torch(checkpoint, pth)
    assert pths[0].read_bytes() == pths[1].read_bytes()
    with pytest.raises(InputError, match="checkpoints/7: there is no such directory"):
        load_model(finished / "checkpoints/7")


def test_a_converted_checkpoint_may_have_a_number_as_name(tmp_path):
    checkpoint = epath.Path(save(tmp_path / "checkpoints/50"))
    assert ModelCard.read(checkpoint) == CARD
    assert checkpoint_name(checkpoint) == "50"


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
    for name in ("gradient_norm", "update_norm"):
        assert first[name] == pytest.approx((4 * lines[0][name] + 2 * lines[1][name]) / 6)
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
    assert scalars["gradient_norm", 12] == pytest.approx(last["gradient_norm"])
    assert scalars["train/loss", 12] == pytest.approx(
        read_lines(finished / "steps.jsonl")[-1]["loss"]
    )


def test_what_does_not_end_a_run(tmp_path, monkeypatch, capsys):
    """Training continues after corrupt images and failed writes of the curves and TensorBoard's
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
    monkeypatch.setattr(loop, "write_curves", fail)
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
    assert printed.out.count(f"warning: curves.html {reason}") == 2
    assert printed.out.count(f"warning: TensorBoard's log {reason}") == 1
    assert printed.out.count("profile written to") == 1
    (trace,) = (tmp_path / "run/profile").rglob("*.xplane.pb")
    assert b"step_num" in trace.read_bytes()


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


STEPS = [
    {"steps": 3, "loss": 2.0, "top1": 0.5, "images_per_second": 0.0, "input_wait": 0.5},
    {
        "steps": 1,
        "loss": 4.0,
        "top1": 0.1,
        "gradient_norm": 2.5,  # the other line is from before these fields existed
        "update_norm": 0.25,
        "images_per_second": 7.0,
        "input_wait": 0.1,
    },
]


def test_metrics_of_an_epoch():
    steps = [line | {"learning_rate": rate} for line, rate in zip(STEPS, (0.2, 0.1), strict=True)]
    metrics = epoch_metrics(3, 9, steps, {"val_top1": 0.25, "real_top1": 0.3}, skipped=4)
    assert metrics == {
        "epoch": 3,
        "step": 9,
        "loss": 2.5,
        "train_top1": pytest.approx(0.4),
        "gradient_norm": 2.5,
        "update_norm": 0.25,
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
    further = {"plain_val_top1": 0.125, "imagenet-a/top1": 0.5, "imagenet-a/top5": 0.75}
    line = describe_epoch(metrics | further, 12, 1.5)
    assert "  val top-1 25.0 % (12.5 % without averaging)  ReaL 30.0 %  imagenet-a 50.0 %" in line


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
