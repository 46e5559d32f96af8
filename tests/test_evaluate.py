"""evaluate.py: exact numbers in every file it writes."""

import csv
import dataclasses
import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import evaluate as command
from an_jax import functional, parallel
from an_jax.checkpoint import ModelCard
from an_jax.data.sets.class_index import imagenet_wnids
from an_jax.data.sources import ImageList
from an_jax.evaluation import evaluator
from an_jax.evaluation.evaluator import top_predictions
from an_jax.evaluation.predictions import ALL
from an_jax.zoo.cost import summarize
from tests import pictures
from tests.small_model import CARD, NAME, random_split, save, softmax_of

# Rank of the label in the model's predictions, for ten images in turn: 12 and 21 of 30 are correct.
RANKS = [0, 0, 3, 5, 0, 1, 700, 4, 5, 0]
TOP1, TOP5 = 12 / 30, 21 / 30


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A directory of two checkpoints with different preprocessing, and other files."""
    path = tmp_path_factory.mktemp("checkpoints")
    other = dataclasses.replace(
        CARD.preprocessing, image_size=20, crop_pct=0.8, interpolation="bicubic"
    )
    save(path / "one")
    save(path / "two", dataclasses.replace(CARD, preprocessing=other))
    (path / "notes.txt").touch()
    shutil.copytree(path / "one", path / ".two.123.tmp")  # left by a process that was killed
    return path


@pytest.fixture(scope="module")
def images():
    """30 JPEGs: parts of the photographs, in different shapes."""
    rng = np.random.default_rng(0)
    parts = []
    for i in range(30):
        top, left, height, width = rng.integers(0, 200, 4)
        part = pictures.photographs()[i % 2][top:, left:][: 20 + height, : 20 + width]
        parts.append(pictures.encode(part, quality=90))
    return parts


@pytest.fixture(scope="module")
def probabilities(checkpoints, images):
    return softmax_of(checkpoints / "one", map(pictures.decode, images))


@pytest.fixture(scope="module")
def labels(probabilities):
    """Labels to which the model gives RANKS."""
    order = np.argsort(-probabilities, axis=1)
    return np.array([order[i, RANKS[i % 10]] for i in range(30)], np.int32)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory, images, labels):
    path = tmp_path_factory.mktemp("data")
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = path / "imagenet-1k/val" / imagenet_wnids()[label]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.JPEG").write_bytes(image)
    return path


def run(*arguments):
    return command.main([str(a) for a in ("--batch_size", 8, *arguments)])


def results(output_dir):
    return json.loads((output_dir / "results.json").read_text())


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(("num_classes", "k"), [(1000, 5), (10, 5), (3, 3)])
def test_top_predictions(num_classes, k):
    rng = np.random.default_rng(0)
    logits = np.float32(rng.permuted(np.tile(np.arange(num_classes), (64, 1)), axis=1))
    logits = logits / 8 - 50
    classes, probabilities = top_predictions(jnp.asarray(logits))
    order = np.argsort(-logits, axis=1)[:, :k]
    np.testing.assert_array_equal(classes, order)
    exp = np.exp(logits.astype(np.float64))
    expected = np.take_along_axis(exp / exp.sum(axis=1, keepdims=True), order, axis=1)
    np.testing.assert_allclose(probabilities, expected, rtol=1e-5)


def test_top_predictions_of_large_logits():
    _, probabilities = top_predictions(jnp.array([[3e4, -3e4, 3e4, 0.0, 0.0, 0.0]]))
    np.testing.assert_allclose(probabilities, [[0.5, 0.5, 0, 0, 0]], rtol=1e-3)


def test_reports(tmp_path, capsys, checkpoints, data_dir, images, labels, probabilities):
    out = tmp_path / "new" / "out"
    arguments = ["--checkpoint", checkpoints, "--data_dir", data_dir, "--output_dir", out]
    assert run(*arguments, "--allow_partial", "--save_predictions") == 0
    table = (out / "results.md").read_text()
    printed = capsys.readouterr().out
    assert printed.startswith("evaluating on 8 devices (cpu), 1 process\n")
    assert table in printed

    one, two = results(out)
    num_params = functional.count(random_split().params)
    gap = abs(probabilities.max(axis=1).mean() - TOP1)  # of so few images there is one bin
    assert one == {
        "model": "one",
        "architecture": NAME,
        "dataset": "imagenet-1k",
        "n": 30,
        "expected": 50000,
        "top1": TOP1,
        "top5": TOP5,
        "nll": pytest.approx(-np.log(probabilities[np.arange(30), labels]).mean(), rel=1e-4),
        "rms_calibration_error": pytest.approx(gap, abs=1e-4),
        "reliability": one["reliability"],  # tested in test_metrics.py
        "num_params": num_params,
        "macs": sum(part.macs for part in summarize(NAME, 16, CARD.num_classes)),
        "image_size": 16,
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        "dtype": "float32",
        "weights_digest": functional.digest(random_split().params | random_split().batch_stats),
    }
    preprocessing = ModelCard.read(checkpoints / "two").preprocessing
    decoded = list(map(pictures.decode, images))
    order = np.argsort(-softmax_of(checkpoints / "two", decoded, preprocessing), axis=1)
    rank = np.argmax(order == labels[:, None], axis=1)
    assert (two["model"], two["image_size"], two["interpolation"]) == ("two", 20, "bicubic")
    assert (two["top1"], two["top5"]) == (np.mean(rank < 1), np.mean(rank < 5))

    lines = table.splitlines()
    assert lines[0] == "| Model | Params (M) | imagenet-1k |"
    assert lines[2] == f"| one | {num_params / 1e6:.3f} | (0.400, 0.700) n=30 |"
    assert lines[3].startswith("| two |")
    assert "imagenet-1k: n = 30 of 50000 images." in table

    rows = (out / "results-imagenet.csv").read_text().splitlines()
    assert (
        rows[0] == "model,img_size,top1,top1_err,top5,top5_err,param_count,crop_pct,interpolation"
    )
    count = f"{num_params / 1e6:.2f}"
    assert f"one,16,40.000,60.000,70.000,30.000,{count},1.000,bilinear" in rows
    assert len(rows) == 3
    top1 = [float(row["top1"]) for row in read_csv(out / "results-imagenet.csv")]
    assert top1 == sorted(top1, reverse=True)

    assert (out / "accuracy_by_test_set.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    check_predictions(out / "predictions/one/imagenet-1k.csv", labels, probabilities)
    assert (out / "predictions/two/imagenet-1k.csv").is_file()


def check_predictions(path, labels, probabilities):
    rows = read_csv(path)
    ranks = range(1, 6)
    header = ["filename", "label", *(f"top{i}" for i in ranks), *(f"prob{i}" for i in ranks)]
    assert list(rows[0]) == header
    wnids = imagenet_wnids()
    names = {f"{wnids[label]}/{i}.JPEG": i for i, label in enumerate(labels)}
    assert [row["filename"] for row in rows] == sorted(names)
    for row in rows:
        i = names[row["filename"]]
        classes = [int(row[f"top{k}"]) for k in ranks]
        assert int(row["label"]) == labels[i]
        assert classes == np.argsort(-probabilities[i])[:5].tolist()
        shown = [float(row[f"prob{k}"]) for k in ranks]
        np.testing.assert_allclose(shown, probabilities[i, classes], atol=1e-5)


def test_preprocessing_and_dtype_can_be_changed(tmp_path, checkpoints, data_dir, images, labels):
    arguments = ["--checkpoint", checkpoints / "one", "--data_dir", data_dir, "--allow_partial"]
    changes = ["--image_size", 24, "--crop_pct", 0.75, "--interpolation", "bicubic"]
    arguments += [*changes, "--save_predictions"]
    preprocessing = dataclasses.replace(
        CARD.preprocessing, image_size=24, crop_pct=0.75, interpolation="bicubic"
    )
    expected = softmax_of(checkpoints / "one", map(pictures.decode, images), preprocessing)
    shown = {}
    for dtype in ("float32", "bfloat16"):
        out = tmp_path / dtype
        assert run(*arguments, "--output_dir", out, "--dtype", dtype) == 0
        (entry,) = results(out)
        fields = ("n", "image_size", "crop_pct", "interpolation", "dtype")
        assert [entry[key] for key in fields] == [30, 24, 0.75, "bicubic", dtype]
        rows = read_csv(out / "predictions/one/imagenet-1k.csv")
        shown[dtype] = {row["filename"]: float(row["prob1"]) for row in rows}
    check_predictions(tmp_path / "float32/predictions/one/imagenet-1k.csv", labels, expected)
    difference = [abs(shown["bfloat16"][name] - p) for name, p in shown["float32"].items()]
    assert 1e-4 < max(difference) < 0.1


def test_several_test_sets_in_one_or_two_commands(tmp_path, monkeypatch, capsys):
    """The paths are relative to the working and the home directory. The second command adds to the
    results of the first, unless it has other settings."""
    save(tmp_path / "digits", dataclasses.replace(CARD, num_classes=10))
    monkeypatch.chdir(tmp_path / "digits/weights")
    monkeypatch.setenv("HOME", str(tmp_path))
    arguments = ["--checkpoint=..", "--output_dir=~", "--data_dir=~"]
    arguments += ["--batch_size", 100]
    assert run(*arguments, "--datasets", "digits-blur") == 0
    alone = (tmp_path / "results-digits-blur.csv").read_text()
    other_size = [*arguments, "--datasets", "digits", "--image_size", 8]
    assert run(*other_size) == 1
    assert "digits on digits-blur with another image_size" in capsys.readouterr().err
    assert run(*arguments, "--datasets", "digits") == 0
    assert alone != (tmp_path / "results-digits-blur.csv").read_text()  # has differences now
    assert (tmp_path / "shifted_accuracy.png").is_file()
    assert {entry["model"] for entry in results(tmp_path)} == {"digits"}
    assert [(e["dataset"], e["n"], e["expected"]) for e in results(tmp_path)] == [
        ("digits-blur", 360, 360),
        ("digits", 360, 360),
    ]
    table = (tmp_path / "results.md").read_text()
    assert "| Model | Params (M) | digits-blur | digits |" in table
    assert "n=" not in table


@functools.cache
def evaluation_on(devices):
    """An evaluation on that many devices; compiled once."""
    split = random_split()
    mesh = parallel.make_mesh(devices=jax.devices()[:devices])
    evaluate_on = evaluator.Evaluator(split.definition, 1000, CARD.preprocessing, 8, mesh)
    arrays = parallel.replicate((split.params, split.batch_stats), mesh)
    return functools.partial(evaluate_on, *arrays, title="t")


@pytest.mark.parametrize("n", [1, 7, 30])
def test_any_number_of_devices(images, labels, n):
    names = [f"{i}.JPEG" for i in range(n)]
    source = ImageList(names, labels[:n], encoded=images[:n])
    one, eight = (evaluation_on(devices)(source=source) for devices in (1, 8))
    for predictions in (one, eight):
        assert [name.decode() for name in predictions.filenames] == names
        np.testing.assert_array_equal(predictions.labels, labels[:n])
        right = predictions.classes[ALL] == labels[:n, None]
        ranks = np.resize(RANKS, n)
        assert right[:, 0].sum() == np.sum(ranks < 1)
        assert right.sum() == np.sum(ranks < 5)
    assert list(one.classes) == [ALL, "imagenet-a", "imagenet-o", "imagenet-r"]
    for space in one.classes:
        np.testing.assert_array_equal(one.classes[space], eight.classes[space])
        np.testing.assert_allclose(one.confidence[space], eight.confidence[space], atol=1e-5)


def test_steps_that_wait_hold_no_images(images, labels, monkeypatch):
    steps, delay = [], evaluator._delay
    monkeypatch.setattr(evaluator, "_delay", lambda *args: [*map(keep, delay(*args))])

    def keep(step):
        steps.append(step)
        return step

    names = [f"{i}.JPEG" for i in range(8)]
    evaluation_on(8)(source=ImageList(names, labels[:8], encoded=images[:8]))
    assert [step.batch.keys() for step in steps] == [{"label", "filename", "mask"}]


def test_cropped_images_are_not_cropped_again(images, labels):
    split = random_split()
    mesh = parallel.make_mesh()
    arrays = parallel.replicate((split.params, split.batch_stats), mesh)
    source = ImageList([f"{i}.JPEG" for i in range(8)], labels[:8], encoded=images[:8])
    preprocessing = dataclasses.replace(CARD.preprocessing, crop_pct=0.5)
    evaluate_on = evaluator.Evaluator(split.definition, 1000, preprocessing, 8, mesh)
    cropped = evaluate_on(*arrays, source, title="t")
    uncropped = evaluate_on(*arrays, source, title="t", is_cropped=True)
    expected = evaluation_on(8)(source=source)
    np.testing.assert_array_equal(uncropped.classes[ALL], expected.classes[ALL])
    assert (cropped.classes[ALL] != expected.classes[ALL]).any()
