"""evaluate.py: a one-line message on invalid input."""

import dataclasses
import os
import sys

import jax
import numpy as np
import pytest

import evaluate as command
from an_jax.data.sets.class_index import imagenet_wnids
from an_jax.evaluation import evaluator
from tests import pictures
from tests.small_model import CARD, save


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoints")
    save(path / "one")
    return path


@pytest.fixture(scope="module")
def images():
    """30 JPEGs."""
    return [pictures.encode(pictures.noise(20, 20 + i), quality=90) for i in range(30)]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory, images):
    path = tmp_path_factory.mktemp("data")
    folder = path / "imagenet-1k/val" / imagenet_wnids()[3]
    folder.mkdir(parents=True)
    for i, image in enumerate(images):
        (folder / f"{i}.JPEG").write_bytes(image)
    return path


def run(*arguments):
    return command.main([str(a) for a in ("--batch_size", 8, *arguments)])


@pytest.fixture
def fails(tmp_path, capsys, checkpoints, data_dir):
    """Runs with invalid input; returns the one line on stderr."""

    def check(*arguments, progress=False, **changes):
        options = {"checkpoint": checkpoints / "one", "data_dir": data_dir}
        options |= {"output_dir": tmp_path / "out"} | changes
        given = [a for key, value in options.items() if value for a in (f"--{key}", value)]
        assert run("--allow_partial", *given, *arguments) == 1
        *before, line, after = capsys.readouterr().err.split("\n")
        assert progress or not before
        assert after == ""
        assert line.startswith("error: ")
        return line

    return check


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_dir": None}, "imagenet-1k needs --data_dir"),
        ({"data_dir": "/nonexistent/data"}, "no data directory /nonexistent/data"),
        ({"data_dir": "/none", "datasets": "imagenet-1k-reassessed"}, "no data directory /none"),
        ({"data_dir": "s4://data"}, "s4://data cannot be read: File system scheme 's4' not impl"),
        ({"datasets": "imagenet-2k"}, "unknown test set 'imagenet-2k'"),
        ({"datasets": "imagenet-1k,digits"}, "one has 1000 classes, digits has 10"),
        ({"checkpoint": "/nonexistent/model"}, "no checkpoint at /nonexistent/model"),
        ({"batch_size": "0"}, "--batch_size must be"),
        ({"batch_size": "-8"}, "--batch_size must be"),
        ({"image_size": "0"}, "image_size must be"),
        ({"crop_pct": "0.0"}, "crop_pct must be"),
        ({"crop_pct": "1.5"}, "crop_pct must be"),
        ({"crop_pct": "nan"}, "crop_pct must be"),
    ],
)
def test_bad_arguments(fails, changes, message):
    assert message in fails(**changes)


def test_empty_data_dir(fails, tmp_path):
    assert f"no imagenet-1k in {tmp_path}" in fails(data_dir=tmp_path)


def test_empty_flat_folder(fails, tmp_path):
    (tmp_path / "imagenet-1k/val").mkdir(parents=True)
    (tmp_path / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n")
    assert str(tmp_path / "imagenet-1k/val") in fails(data_dir=tmp_path)


def test_partial_set_is_refused(tmp_path, capsys, checkpoints, data_dir):
    arguments = ["--checkpoint", checkpoints, "--data_dir", data_dir, "--output_dir", tmp_path]
    assert run(*arguments) == 1
    line = capsys.readouterr().err
    assert line.startswith(
        f"error: imagenet-1k in {data_dir}: 30 of 50,000 images. Pass --allow_partial"
    )
    assert line.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_no_checkpoint(fails, tmp_path):
    (tmp_path / "weights").mkdir()
    assert f"{tmp_path} is not a checkpoint of this project" in fails(checkpoint=tmp_path)


def test_damaged_weights(fails, tmp_path):
    save(tmp_path / "damaged")
    for file in (tmp_path / "damaged/weights").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    assert str(tmp_path / "damaged/weights") in fails(checkpoint=tmp_path / "damaged")


def test_names_that_are_not_utf8(fails, tmp_path, monkeypatch, capsys):
    """Of an image, a checkpoint and an argument; each as the file system holds it."""
    name = os.fsdecode(b"caf\xe9")
    folder = tmp_path / "data/imagenet-1k" / imagenet_wnids()[5]
    folder.mkdir(parents=True)
    (folder / f"{name}.JPEG").touch()
    message = f"{folder}: the file name b'caf\\xe9.JPEG' is not UTF-8"
    assert message in fails(data_dir=tmp_path / "data")
    save(tmp_path / "one").rename(tmp_path / name)
    message = "error: the name b'caf\\xe9' is not UTF-8: rename the file or directory"
    assert fails(checkpoint=tmp_path) == message
    monkeypatch.setattr(sys, "argv", ["evaluate.py", "--checkpoint", name, "--output_dir", "out"])
    assert command.main() == 1
    assert capsys.readouterr().err == message + "\n"


def test_two_checkpoints_of_one_name(fails, tmp_path, checkpoints):
    save(tmp_path / "one")
    assert "two checkpoints are named one" in fails("--checkpoint", tmp_path / "one")


def test_other_classes(fails, tmp_path):
    save(tmp_path / "ten", dataclasses.replace(CARD, num_classes=10))
    message = "ten has 10 classes, imagenet-1k has 1000: choose other --datasets (NAME=PATH for"
    assert message in fails(checkpoint=tmp_path / "ten")
    own = dataclasses.replace(CARD, source={"classes": [f"class {i}" for i in range(1000)]})
    save(tmp_path / "own", own)
    message = "own has classes of its own, imagenet-1k has ImageNet's: choose other --datasets"
    assert message in fails(checkpoint=tmp_path / "own")


def test_corrupt_image(fails, tmp_path, images):
    folder = tmp_path / "imagenet-1k" / imagenet_wnids()[5]
    folder.mkdir(parents=True)
    for i in range(10):
        (folder / f"{i}.JPEG").write_bytes(images[i][: 300 if i == 9 else None])
    line = fails(data_dir=tmp_path, progress=True)
    assert line == f"error: {folder}/9.JPEG is corrupt or no image; replace or remove it"


def test_infinite_logits(fails, tmp_path):
    save(tmp_path / "huge", **{"fc.kernel": np.full((64, 1000), 3e38, np.float32)})
    line = fails(checkpoint=tmp_path / "huge", progress=True)
    assert "huge on imagenet-1k: the logits of 8 images are NaN or infinite" in line
    assert not (tmp_path / "out/results.json").exists()


def test_a_lack_of_device_memory(fails, monkeypatch):
    def run_out(*args, **options):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")

    monkeypatch.setattr(evaluator.Evaluator, "__call__", run_out)
    assert fails().startswith("error: out of device memory: lower --batch_size, which is 8 (RESOU")


def test_a_file_system_that_fails(fails, monkeypatch):
    def refuse(*args):
        raise OSError(5, "Input/output error", "/data")

    monkeypatch.setattr("an_jax.evaluation.opening.open_image_set", refuse)
    assert "/data'; wait until the network and the storage work" in fails()


@pytest.mark.parametrize("where", ["out", "out/below"])
def test_file_in_the_way(fails, tmp_path, where):
    (tmp_path / "out").touch()
    assert f"cannot write to {tmp_path / where}" in fails(output_dir=tmp_path / where)


def test_results_of_another_project_are_not_replaced(fails, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/results.json").write_text('{"accuracy": 0.5}')
    assert f"{tmp_path}/out/results.json is damaged, or not written by" in fails()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["results.json"]


@pytest.mark.parametrize("name", ["predictions", "results.json"])
def test_output_in_the_way(fails, tmp_path, name):
    """A file in place of a directory, or a directory in place of a file."""
    path = tmp_path / "out" / name
    path.parent.mkdir()
    path.touch() if name == "predictions" else path.mkdir()
    assert str(path) in fails("--save_predictions", progress=True)
