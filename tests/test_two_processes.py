"""Two processes: the same numbers as in one, and a common end after an error."""

import io
import json
import re
import shutil
import signal
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow_datasets as tfds
from etils import epath

from an_jax.data.sets.class_index import imagenet_wnids
from an_jax.training.log_files import read_lines
from tests import fake_archives, fake_tfds
from tests.digits_runs import NUM_STEPS, read_last
from tests.processes import finish, once, shared_by_workers, start_two
from tests.small_model import random_split, save
from tests.suite import entries, run

KERNEL = "conv1.kernel"

DATASETS = ["imagenet-1k", "imagenet-1k-reassessed", "imagenet-sketch", "imagenet-o"]
# Runs whose inputs differ between the processes -> what both of them say.
DIFFERENT = {
    "flags": "process 1 does not have the same --batch_size as process 0",
    "list": "process 1 does not have the same list of checkpoints as process 0",
    "weights": "process 1 does not have the same weights of model as process 0",
    "init_from": "process 1 does not have the same weights of other/model as process 0",
}
# Runs in which one process alone has an error -> the error.
FAILED = {
    "images": "imagenet-a/n.*/0.1_.*cannot be read: .*[Nn]o such file",
    "missing": "no checkpoint at ",
    "damaged": "files have changed since they were written",
    "info": "info/imagenet_a is damaged: .*Remove it and prepare it again",
    "shard": "example 10 of imagenet_a/0.1.0 cannot be read: corrupted record",
    "training": "the training images cannot be read: folder/train/.* [Ii]s a directory",
}
UNWRITABLE = ("unwritable", "log")  # runs in which process 0 cannot write
RUNS = ("whole", "resumed", "corrupt", "preempted", "trained", *UNWRITABLE, *DIFFERENT, *FAILED)


class Run(NamedTuple):
    """What the two processes did in one run; a pair each."""

    status: list[int]
    out: list[str]
    err: list[str]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return shared_by_workers(tmp_path_factory, "two")


@pytest.fixture(scope="module")
def bad_file(runs, directory):
    """A file that only the second process reads."""
    return max((directory / "corrupt/imagenet-1k/val").glob("*/*.JPEG"))


def prepare_tfds(here, there):
    """imagenet-a for tfds in both directories; `there` it is damaged in two ways."""
    examples = [
        {"image": io.BytesIO(fake_archives.jpeg(i)), "label": 6, "file_name": f"{i}.jpg"}
        for i in range(20)
    ]
    features = {
        "image": tfds.features.Image(encoding_format="jpeg"),
        "label": tfds.features.ClassLabel(names=imagenet_wnids()),
        "file_name": tfds.features.Text(),
    }
    fake_tfds.prepare(here / "info", "imagenet_a", "0.1.0", "test", features, examples)
    for target in (here / "shard", there / "info", there / "shard"):
        shutil.copytree(here / "info", target)
    prepared = "imagenet_a/0.1.0"
    (there / "info" / prepared / "dataset_info.json").write_text("{")
    (shard,) = (there / "shard" / prepared).glob("*.tfrecord*")
    shard.write_bytes(b"damaged" * 1000)


def prepare_training(here, there):
    """Class folders in both directories; `there` the training images cannot be read."""
    for root in (here, there):
        for i in range(20):  # ten classes, as in other tests, whose compiled step is used
            for part in ("train", "val"):
                path = root / "folder" / part / str(i % 10) / f"{i}.jpg"
                fake_archives.write(path, fake_archives.jpeg(i))
    for path in (there / "folder/train").glob("*/*.jpg"):
        path.unlink()
        path.mkdir()


@pytest.fixture(scope="module")
def runs(directory, small_checkpoint, archives):
    """One job of two processes that runs the command once for each of RUNS."""
    found = once(directory, lambda: run_all(directory, small_checkpoint, archives))
    return {name: Run(*columns) for name, columns in found.items()}


def run_all(directory, small_checkpoint, archives):
    """Returns the columns of a Run for each of RUNS."""
    here, there = directory / "here", directory / "there"
    fake_archives.make_all(directory / "corrupt", heavy=False)
    max((directory / "corrupt/imagenet-1k/val").glob("*/*.JPEG")).write_bytes(b"none")
    prepare_tfds(here, there)
    prepare_training(here, there)
    for place, scale in ((here, 1), (there, 2)):
        fake_archives.make_all(place, heavy=False)
        shutil.copytree(small_checkpoint, place / "same/model")
        shutil.copytree(small_checkpoint, place / "damaged")
        save(place / "other/model", **{KERNEL: random_split().params[KERNEL] * scale})
    last = max((there / "imagenet-a").glob("*/*.jpg"))
    last.rename(last.with_name("other.jpg"))
    shutil.copytree(small_checkpoint, there / "more/another")
    for place in (here, there):
        shutil.copytree(small_checkpoint, place / "more/model")
    shutil.copytree(small_checkpoint, here / "missing")
    (there / "damaged/weights/manifest.ocdbt").write_bytes(b"")
    (directory / "file").touch()
    sketch = ("--data_dir", archives, "--datasets", "imagenet-sketch")
    sketch += ("--output_dir", directory / "different_out", "--checkpoint")
    small = ("--checkpoint", small_checkpoint)
    whole = (*small, "--data_dir", archives, "--datasets", ",".join(DATASETS))
    changes = {
        "whole": (*whole, "--output_dir", directory / "out"),
        "resumed": (*whole, "--output_dir", directory / "out"),
        "corrupt": (
            *(*small, "--data_dir", directory / "corrupt"),
            *("--output_dir", directory / "corrupt_out"),
        ),
        "unwritable": (*small, "--data_dir", archives, "--output_dir", directory / "file"),
        # Relative paths: each process has another working directory.
        "images": (*sketch, "same/model", "--data_dir", ".", "--datasets", "imagenet-a"),
        "flags": (*sketch, "same/model", "--batch_size", "1{process}"),
        "list": (*sketch, "more"),
        "weights": (*sketch, "other/model"),
        "missing": (*sketch, "missing"),
        "damaged": (*sketch, "damaged"),
        "info": (*sketch, "same/model", "--data_dir", "info", "--datasets", "imagenet-a"),
        "shard": (*sketch, "same/model", "--data_dir", "shard", "--datasets", "imagenet-a"),
    }
    given = ("--batch_size", 16, "--allow_partial")
    commands = {name: [*map(str, (*given, *change))] for name, change in changes.items()}
    workdir = str(directory / "run")
    commands["init_from"] = ["train", workdir, {"init_from": "other/model"}]
    (directory / "log").mkdir()
    (directory / "log/steps.jsonl").symlink_to("nowhere/steps.jsonl")
    commands["log"] = ["train", str(directory / "log"), {}]
    commands["preempted"] = ["preempt", str(directory / "trained"), {}]
    commands["trained"] = ["train", str(directory / "trained"), {}]
    commands["training"] = ["train", workdir, {"dataset": "folder", "data_dir": "folder"}]
    commands = json.dumps([commands[name] for name in RUNS])
    script = "tests/evaluations_in_turn.py"
    processes = finish(*start_two(script, commands, directories=(here, there)))
    assert [status for status, *_ in processes] == [0, 0], processes
    pieces = [re.split(r"STATUS: (\d)\n", text) for _, *texts in processes for text in texts]
    return {
        name: [
            [int(pieces[process][2 * i + 1]) for process in (0, 2)],
            [pieces[process][2 * i] for process in (0, 2)],
            [pieces[process][2 * i] for process in (1, 3)],
        ]
        for i, name in enumerate(RUNS)
    }


@pytest.mark.parametrize("name", ["whole", "resumed"])
def test_output(runs, name):
    """Process 0 alone prints and lists images; a resumed run evaluates nothing again."""
    status, (out, other_out), (err, other_err) = runs[name]
    assert status == [0, 0], err + other_err
    assert "imagenet-sketch" in out
    assert "written to" not in other_out
    assert "listed: " in out
    assert "listed: " not in other_out
    assert ("small on imagenet-sketch" in err) == (name == "whole")
    assert "small on imagenet-sketch" not in other_err


def test_results_equal_one_process(tmp_path, runs, directory, small_checkpoint, archives):
    """Two processes give the same results as one, also on sets that the devices do not divide."""
    arguments = ["--checkpoint", small_checkpoint, "--data_dir", archives, "--output_dir", tmp_path]
    assert run(*arguments, "--datasets", ",".join(DATASETS)) == 0
    found, expected = entries(directory / "out"), entries(tmp_path)
    for name in DATASETS:
        aupr = expected[name].pop("aupr", None)
        assert found[name].pop("aupr", None) == (aupr and pytest.approx(aupr))
        assert found[name] == expected[name]


def test_corrupt_image_on_one_process(runs, bad_file):
    status, _, (err, other_err) = runs["corrupt"]
    assert status == [1, 1]
    assert "another process has failed" in err
    assert f"{bad_file} is corrupt or no image" in other_err


@pytest.mark.parametrize("name", UNWRITABLE)
def test_output_that_cannot_be_written(runs, name):
    status, _, (err, other_err) = runs[name]
    assert status == [1, 1]
    assert "cannot write to" in err
    assert "error: stopped: process 0 has failed" in other_err


@pytest.mark.parametrize("name", DIFFERENT)
def test_processes_with_different_inputs_stop(runs, directory, name):
    """No predictions are saved."""
    status, _, errors = runs[name]
    assert status == [1, 1]
    for err in errors:
        assert err.endswith(
            f"error: {DIFFERENT[name]}; give all processes the same command and files\n"
        )
    assert not list(directory.glob("different_out/**/*.npz"))


@pytest.mark.parametrize("name", FAILED)
def test_an_error_on_one_process_alone(runs, name):
    """Both processes stop with one line, and at once."""
    status, _, (err, other_err) = runs[name]
    assert status == [1, 1]
    assert re.search(r"error: .*stopped.*\bprocess\b.* has failed", err)
    assert re.search(f"error: .*{FAILED[name]}", other_err)
    assert "Traceback" not in err + other_err


def test_preempted_and_resumed(runs, directory, finished):
    """SIGTERM reaches one of two processes: both save the same step and end. They resume, and end
    with the results of one process that nothing interrupted, but for rounding."""
    status, (out, other_out), (err, other_err) = runs["preempted"]
    assert status == [0, 0], err + other_err
    assert "Traceback" not in err + other_err
    assert "compiled in" in out
    assert "M parameters" not in other_out
    assert "SIGTERM" not in other_out
    step = int(
        re.search(r"SIGTERM: saved at step (\d+); run the same command again to resume", out)[1]
    )
    assert 3 <= step < NUM_STEPS

    status, (out, _), (err, other_err) = runs["trained"]
    assert status == [0, 0], err + other_err
    assert f"resuming after step {step}" in out
    workdir = epath.Path(directory / "trained")
    final, expected = read_last(workdir), read_last(finished)
    for path, value in expected.params.items():
        np.testing.assert_allclose(final.params[path], value, atol=1e-5)
    for line, expected_line in zip(
        *(read_lines(path / "metrics.jsonl") for path in (workdir, finished)), strict=True
    ):
        assert line["loss"] == pytest.approx(expected_line["loss"], rel=1e-5)


@pytest.mark.slow
def test_exit_status_of_the_command(directory, bad_file, small_checkpoint):
    """Both processes exit after an error on one."""
    given = ("--batch_size", 16, "--allow_partial", "--checkpoint", small_checkpoint)
    given += ("--data_dir", directory / "corrupt", "--output_dir", directory / "exit_out")
    assert [status for status, *_ in finish(*start_two("evaluate.py", *given))] == [1, 1]


@pytest.mark.slow
def test_sigterm_ends_the_processes():
    """jax would ignore it in a job, if it were not told otherwise."""
    processes = start_two("tests/late_process.py")
    for process in processes:
        assert "connected\n" in iter(process.stdout.readline, "")  # Gloo prints before it
        process.send_signal(signal.SIGTERM)
    assert [status for status, *_ in finish(*processes)] == [-signal.SIGTERM] * 2


@pytest.mark.slow
def test_a_late_process_is_waited_for():
    statuses = [(status, err) for status, _, err in finish(*start_two("tests/late_process.py"))]
    assert [status for status, _ in statuses] == [0, 0], statuses
