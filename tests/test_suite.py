"""The whole suite of test sets: what it scores, on any topology, resumed, and compared."""

import dataclasses
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

import evaluate as command
from an_jax.data.alexnet_p import KEYS
from an_jax.data.class_index import subset
from an_jax.data.image_sets import (
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    PERTURBATIONS,
    open_image_set,
)
from an_jax.data.test_sets import PUBLISHED, TEST_SETS, expand_names
from an_jax.evaluation import evaluator
from an_jax.evaluation.alexnet import ALEXNET_ERRORS
from an_jax.released import RELEASED
from tests import fake_archives, pictures, reference
from tests.small_model import random_split, save, softmax_of


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    fake_archives.make_all(path)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A model that varies what it says, and favours the classes that there are."""
    path = tmp_path_factory.mktemp("checkpoints") / "small"
    shown = [fake_archives.picture(i) for i in range(20)]
    usual = np.log(softmax_of(save(path.with_name("plain")), shown)).mean(axis=0)
    bias = random_split().params["fc.bias"] - np.float32(usual)
    bias[np.unique(fake_archives.VAL_LABELS)] += 10
    return save(path, **{"fc.bias": bias})


def run(*arguments):
    return command.main([str(a) for a in ("--batch_size", 16, "--allow_partial", *arguments)])


def entries(output_dir):
    return {e["dataset"]: e for e in json.loads((output_dir / "results.json").read_text())}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, checkpoint, data_dir):
    """The output directory of an evaluation on everything."""
    out = tmp_path_factory.mktemp("out")
    arguments = ["--checkpoint", checkpoint, "--data_dir", data_dir, "--output_dir", out]
    assert run(*arguments, "--datasets", "all") == 0
    return out


@pytest.fixture(scope="module")
def truth(checkpoint, data_dir):
    """Image set -> its labels, file names, and probabilities [n, 1000] by Pillow and NumPy."""

    def probabilities(name):
        source = open_image_set(name, str(data_dir), True)
        images = [
            pictures.decode((data_dir / source.root / file).read_bytes())
            for file in source.filenames
        ]
        return source.labels, source.filenames, softmax_of(checkpoint, images)

    return {
        name: probabilities(name)
        for test_set in map(TEST_SETS.get, expand_names("all"))
        for name in (*test_set.image_sets, *test_set.optional_sets)
        if not name.startswith("imagenet-p")
    }


def top(labels, probabilities, k, classes=range(1000)):
    """Fraction of the labels among the k most probable of some classes."""
    classes = np.array(classes)
    best = classes[np.argsort(-probabilities[:, classes], axis=1)[:, :k]]
    return np.mean([label in row for label, row in zip(labels, best, strict=True)])


def of_classes(truth, name, classes):
    labels, _, probabilities = truth[name]
    kept = np.isin(labels, classes)
    return labels[kept], probabilities[kept]


@pytest.mark.parametrize("name", ["imagenet-1k", *PUBLISHED[2:6]])
def test_accuracy(evaluated, truth, name):
    labels, _, probabilities = truth[name]
    entry = entries(evaluated)[name]
    assert entry["top5"] > 0
    assert entry["n"] == len(labels)
    assert entry["top1"] == top(labels, probabilities, 1)
    assert entry["top5"] == top(labels, probabilities, 5)


@pytest.mark.parametrize(
    ("name", "images", "classes"),
    [
        ("imagenet-a", "imagenet-a", "imagenet-a"),
        ("imagenet-r", "imagenet-r", "imagenet-r"),
        ("imagenet-a-clean", "imagenet-1k", "imagenet-a"),
        ("imagenet-r-clean", "imagenet-1k", "imagenet-r"),
    ],
)
def test_accuracy_in_a_subset(evaluated, truth, name, images, classes):
    labels, probabilities = of_classes(truth, images, subset(classes))
    entry = entries(evaluated)[name]
    assert entry["n"] == len(labels) >= 5
    assert entry["top1"] == top(labels, probabilities, 1, subset(classes))
    assert entry["top5"] == top(labels, probabilities, 5, subset(classes))
    assert entry["unrestricted_top1"] == top(labels, probabilities, 1)
    restricted = probabilities[:, subset(classes)]
    restricted /= restricted.sum(axis=1, keepdims=True)
    right = np.array(subset(classes))[restricted.argmax(axis=1)] == labels
    gap = restricted.max(axis=1).mean() - right.mean()  # of so few images there is one bin
    assert entry["rms_calibration_error"] == pytest.approx(abs(gap), abs=1e-4)
    order = np.argsort(-restricted.max(axis=1))
    curve = np.cumsum(right[order]) / np.arange(1, len(right) + 1)
    assert entry["aurra"] == pytest.approx(curve.mean())


def test_real_labels(evaluated, truth):
    _, names, probabilities = truth["imagenet-1k"]
    numbers = [int(name[-13:-5]) for name in names]
    sets = [fake_archives.REAL_LABELS[number - 1] for number in numbers]
    order = np.argsort(-probabilities, axis=1)
    entry = entries(evaluated)["imagenet-1k-reassessed"]
    assert 0 < entry["top1"] < entry["top5"] < 1
    assert (entry["n"], entry["expected"]) == (17, 46_837)
    for k in (1, 5):
        hits = [
            bool(set(row[:k]) & set(labels))
            for row, labels in zip(order, sets, strict=True)
            if labels
        ]
        assert entry[f"top{k}"] == np.mean(hits)


def test_imagenet_o(evaluated, truth):
    """AUPR of the two kinds of images; and the published column, by the wrong classes."""
    classes = subset("imagenet-o")
    labels, _, outside = truth["imagenet-o"]
    _, inside = of_classes(truth, "imagenet-1k", classes)
    both = np.concatenate([outside, inside])[:, classes]
    confidence = both.max(axis=1) / both.sum(axis=1)
    is_outside = np.arange(len(both)) < len(outside)
    entry = entries(evaluated)["imagenet-o"]
    assert entry["n"] == len(both)
    assert entry["aupr"] == pytest.approx(average_precision_score(is_outside, -confidence))
    published = [subset("imagenet-a")[classes.index(label)] for label in labels]
    for k in (1, 5):
        assert entry[f"top{k}"] == top(published, outside, k, subset("imagenet-a"))


def test_imagenet_c(evaluated, truth):
    entry = entries(evaluated)["imagenet-c"]
    assert entry["n"] == len(truth["imagenet-1k"][0]) + 15 * 5 * 2
    assert len(entry["errors"]) == 19
    ratios = []
    for corruption, errors in entry["errors"].items():
        sets = [truth[f"imagenet-c/{corruption}/{s}"] for s in range(1, 6)]
        assert errors == [1 - top(labels, p, 1) for labels, _, p in sets]
        if corruption in CORRUPTIONS:
            ratios.append(sum(errors) / sum(ALEXNET_ERRORS[corruption]))
    assert entry["mce"] == pytest.approx(np.mean(ratios))
    assert entry["top1"] == pytest.approx(
        1 - np.mean([entry["errors"][corruption] for corruption in CORRUPTIONS])
    )
    assert 0 < entry["top1"] < 1
    clean = 1 - entries(evaluated)["imagenet-1k"]["top1"]
    relative = [
        (sum(entry["errors"][c]) - 5 * clean) / (sum(ALEXNET_ERRORS[c]) - 5 * (1 - 0.56522))
        for c in CORRUPTIONS
    ]
    assert entry["relative_mce"] == pytest.approx(np.mean(relative))


def slow_distance(probabilities):
    """Mean top-5 distance of each frame from the one before, by ranks of all classes."""
    distances = []
    for video in np.split(probabilities, fake_archives.VIDEOS):
        ranks = [np.argsort(np.argsort(-frame)) for frame in video]
        for before, after in itertools.pairwise(ranks):
            leaders = np.argsort(before)[:5]
            costs = np.abs(np.minimum(before, 5) - np.minimum(after, 5))
            distances.append(costs[leaders].sum())
    return np.mean(distances)


def test_imagenet_p(evaluated, checkpoint, data_dir):
    """Frames as PyAV decodes them, compared one by one."""
    entry = entries(evaluated)["imagenet-p"]
    assert entry["n"] == fake_archives.VIDEOS * (9 * 31 + 41)
    assert list(entry["flip_probability"]) == list(PERTURBATIONS)
    for name in ("snow", "gaussian_noise", "translate"):
        source = open_image_set(f"imagenet-p/{name}", str(data_dir), True)
        images = [e["image"] for e in source.read(range(len(source))).as_numpy_iterator()]
        assert (
            np.abs(
                np.float32(images[3]) - fake_archives.frames(10 * PERTURBATIONS.index(name), 4)[3]
            ).mean()
            < 12
        )
        probabilities = softmax_of(checkpoint, images)
        best = probabilities.argmax(axis=1).reshape(fake_archives.VIDEOS, -1)
        before = best[:, :1] if name.endswith("noise") else best[:, :-1]
        assert entry["flip_probability"][name] == np.mean(best[:, 1:] != before)
        if name == "snow":
            assert entry["top5_distance"][name] == pytest.approx(slow_distance(probabilities))
    assert entry["mean_flip_probability"] == np.mean(list(entry["flip_probability"].values()))


def test_imagenet_p_by_alexnet(tmp_path, checkpoint, data_dir, capsys):
    """Predictions are kept; what they are divided by comes later, or is no table."""
    whole = {key: dict.fromkeys(PERTURBATIONS, v) for key, v in zip(KEYS, (0.5, 4), strict=True)}
    arguments = ["--checkpoint", checkpoint, "--data_dir", tmp_path, "--datasets", "imagenet-p"]
    arguments += ["--output_dir", tmp_path / "out"]
    shutil.copytree(data_dir / "imagenet-p", tmp_path / "imagenet-p")
    fake_archives.write(tmp_path / "imagenet-p/alexnet.json", json.dumps(whole).encode())
    assert run(*arguments) == 0
    entry = entries(tmp_path / "out")["imagenet-p"]
    assert entry["mfr"] == pytest.approx(entry["mean_flip_probability"] / 0.5)
    assert entry["mt5d"] == pytest.approx(entry["mean_top5_distance"] / 4)
    del whole["top5_distance"]["snow"]
    fake_archives.write(tmp_path / "imagenet-p/alexnet.json", json.dumps(whole).encode())
    assert run(*arguments) == 1
    assert "does not hold flip_probability and top5_distance" in capsys.readouterr().err


def test_everything_is_reported(evaluated):
    found = entries(evaluated)
    assert list(found) == expand_names("all")
    assert {TEST_SETS[name].csv for name in found} < {p.name for p in evaluated.iterdir()}
    table = (evaluated / "results.md").read_text()
    assert all(name in table for name in found)


def test_names_of_groups():
    assert tuple(next(iter(RELEASED.values())).results) == PUBLISHED
    assert expand_names("published") == list(PUBLISHED)
    assert expand_names("imagenet-a,published,imagenet-a")[:2] == ["imagenet-a", "imagenet-1k"]
    assert len(expand_names("all")) == 13


def test_finished_sets_are_kept(tmp_path, checkpoint, data_dir, evaluated, monkeypatch):
    """An interrupted run goes on; another model, setting or set of images starts anew."""
    calls, interruptions = [], [KeyboardInterrupt]
    whole = evaluator.Evaluator.__call__

    def counted(self, *arguments, title, **options):
        if title.endswith("imagenet-sketch") and interruptions:
            raise interruptions.pop()
        calls.append(title.split()[-1])
        return whole(self, *arguments, title=title, **options)

    monkeypatch.setattr(evaluator.Evaluator, "__call__", counted)
    arguments = ["--checkpoint", checkpoint, "--data_dir", data_dir, "--output_dir", tmp_path]
    arguments += ["--datasets", "imagenet-a,imagenet-sketch"]
    with pytest.raises(KeyboardInterrupt):
        run(*arguments)
    assert calls == ["imagenet-a"]
    assert run(*arguments) == 0
    assert calls == ["imagenet-a", "imagenet-sketch"]
    expected = entries(evaluated)
    assert entries(tmp_path) == {n: expected[n] for n in ("imagenet-a", "imagenet-sketch")}
    for change in (["--interpolation", "bicubic"], ["--dtype", "bfloat16"]):
        calls.clear()
        assert run(*arguments, *change) == 0
        assert calls == ["imagenet-a", "imagenet-sketch"]
    file = tmp_path / "predictions/small/imagenet-a.npz"
    whole_file = file.read_bytes()
    flipped = bytearray(whole_file)
    flipped[len(flipped) // 2] ^= 255
    for damaged in (whole_file[:500], bytes(flipped), b""):
        file.write_bytes(damaged)
        calls.clear()
        assert run(*arguments, *change) == 0
        assert calls == ["imagenet-a"]
    moved = shutil.copytree(data_dir, tmp_path / "moved", ignore=lambda *_: ["imagenet-p"])
    calls.clear()
    assert run(*arguments[:2], *arguments[4:], *change, "--data_dir", moved) == 0
    assert calls == ["imagenet-a", "imagenet-sketch"]
    calls.clear()
    kernel = "conv1.kernel"
    other = save(tmp_path / "other/small", **{kernel: random_split().params[kernel] * 2})
    assert run(*arguments[2:], *change, "--checkpoint", other) == 0
    assert calls == ["imagenet-a", "imagenet-sketch"]


def test_comparison_with_published_results(tmp_path, capsys, data_dir, monkeypatch):
    """The exit status says whether a released model, on whole sets, gives what was published."""
    released = save(tmp_path / "resnet_50_bn_imagenet")
    arguments = ["--checkpoint", released, "--data_dir", data_dir, "--output_dir", tmp_path / "out"]
    arguments += ["--datasets", "imagenet-sketch", "--compare_published"]
    assert run(*arguments) == 0
    assert "partial" in capsys.readouterr().out
    whole = dataclasses.replace(TEST_SETS["imagenet-sketch"], num_images=5)
    monkeypatch.setitem(TEST_SETS, "imagenet-sketch", whole)
    assert run(*arguments) == 2
    assert "differs" in capsys.readouterr().out
    assert run(*arguments[2:], "--checkpoint", save(tmp_path / "mine")) == 1
    assert "resnet_50_bn_imagenet" in capsys.readouterr().err


@pytest.mark.slow
def test_without_the_extra_corruptions(tmp_path, checkpoint, data_dir, evaluated):
    """They are not part of the benchmark."""
    extra = shutil.ignore_patterns(*EXTRA_CORRUPTIONS, "imagenet-p")
    shutil.copytree(data_dir, tmp_path / "data", ignore=extra)
    arguments = ["--checkpoint", checkpoint, "--data_dir", tmp_path / "data"]
    arguments += ["--output_dir", tmp_path / "out", "--datasets", "imagenet-c"]
    assert run(*arguments) == 0
    entry, expected = entries(tmp_path / "out")["imagenet-c"], entries(evaluated)["imagenet-c"]
    for corruption in EXTRA_CORRUPTIONS:
        del expected["errors"][corruption]
    assert entry == expected


def test_images_of_no_class_of_the_subset(tmp_path, capsys, checkpoint):
    name = "imagenet-1k/val/n02391049/ILSVRC2012_val_00000001.JPEG"  # of none of imagenet-a's
    fake_archives.write(tmp_path / name, fake_archives.jpeg(0))
    arguments = ["--checkpoint", checkpoint, "--data_dir", tmp_path]
    arguments += ["--output_dir", tmp_path / "out", "--datasets", "imagenet-a-clean"]
    assert run(*arguments) == 1
    assert "no image is of the classes of imagenet-a" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["--output_dir", "--checkpoint"])
def test_only_data_may_lie_elsewhere(tmp_path, capsys, checkpoint, place):
    given = {"--checkpoint": checkpoint, "--output_dir": tmp_path, place: "gs://bucket/x"}
    assert run(*(a for pair in given.items() for a in pair), "--datasets", "imagenet-1k") == 1
    assert "must be a local directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spoil", "datasets", "message"),
    [
        (("imagenet-1k/real.json", b"[[1], [2]]"), "imagenet-1k-reassessed", "has 2 entries"),
        (("imagenet-1k/real.json", b"[[1]"), "imagenet-1k-reassessed", "is damaged, no JSON"),
        (("imagenet-1k/real.json", b"[[1000]" + b",[]" * 49_999 + b"]"), "published", "entry 1 is"),
        (("imagenet-a/n01440764/x.jpg", b""), "imagenet-a", "none of the 200 classes"),
        (("imagenetv2-topimages/1000/x.jpg", b""), "published", "none of the 1000 classes"),
        (None, "imagenet-2k", "unknown test set 'imagenet-2k'; the nearest is imagenet"),
    ],
)
def test_bad_data_is_said_at_once(tmp_path, capsys, checkpoint, spoil, datasets, message):
    data_dir = tmp_path / "data"
    fake_archives.make_all(data_dir, heavy=False)
    if spoil:
        fake_archives.write(data_dir / spoil[0], spoil[1])
    arguments = [
        "--checkpoint",
        checkpoint,
        "--data_dir",
        data_dir,
        "--output_dir",
        tmp_path / "out",
    ]
    assert run(*arguments, "--datasets", datasets) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_real_labels_need_original_names(tmp_path, capsys, checkpoint):
    fake_archives.make_all(tmp_path, heavy=False)
    fake_archives.write(tmp_path / "imagenet-1k/val/n01440764/mine.JPEG", fake_archives.jpeg(0))
    arguments = [
        "--checkpoint",
        checkpoint,
        "--data_dir",
        tmp_path,
        "--output_dir",
        tmp_path / "out",
    ]
    assert run(*arguments, "--datasets", "imagenet-1k-reassessed") == 1
    assert "needs the original file names" in capsys.readouterr().err


def two_processes(*arguments, directories=(None, None)):
    """Exit statuses and outputs of evaluate.py in two processes of four devices each, which may
    run in directories of their own."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    environment = {
        **os.environ,
        "JAX_COORDINATOR_ADDRESS": address,
        "JAX_NUM_PROCESSES": "2",
        "JAX_NUM_CPU_DEVICES": "4",
    }
    given = map(str, ("--batch_size", 16, "--allow_partial", *arguments))
    given = [sys.executable, reference.FIXTURES.parents[1] / "evaluate.py", *given]
    processes = [
        subprocess.Popen(
            given,
            env={**environment, "JAX_PROCESS_ID": str(i)},
            cwd=directories[i],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    outputs = [process.communicate(timeout=300) for process in processes]
    return [(p.returncode, *output) for p, output in zip(processes, outputs, strict=True)]


def test_two_processes(tmp_path, checkpoint, data_dir, evaluated):
    """The same counts as one process, for sets that no number of devices divides; resumed, too."""
    arguments = ["--checkpoint", checkpoint, "--data_dir", data_dir, "--output_dir", tmp_path]
    datasets = ["imagenet-1k", "imagenet-1k-reassessed", "imagenet-sketch", "imagenet-o"]
    for again in (False, True):
        (status, out, err), (other_status, other_out, other_err) = two_processes(
            *arguments, "--datasets", ",".join(datasets)
        )
        assert (status, other_status) == (0, 0), err + other_err
        assert "imagenet-sketch" in out
        assert "written to" not in other_out
        assert ("small on imagenet-sketch" in err) != again
        assert "small on imagenet-sketch" not in other_err
        found, expected = entries(tmp_path), entries(evaluated)
        for name in datasets:
            aupr = expected[name].pop("aupr", None)
            assert found[name].pop("aupr", None) == (aupr and pytest.approx(aupr))
            assert found[name] == expected[name]


def test_two_processes_stop_together(tmp_path, checkpoint):
    """A file that only the second reads: both end, and it is named."""
    fake_archives.make_all(tmp_path, heavy=False)
    bad = max((tmp_path / "imagenet-1k/val").glob("*/*.JPEG"))
    bad.write_bytes(b"none")
    arguments = ["--checkpoint", checkpoint, "--data_dir", tmp_path]
    (first, _, first_err), (second, _, second_err) = two_processes(
        *arguments, "--output_dir", tmp_path / "out"
    )
    assert (first, second) == (1, 1)
    assert "another process has failed" in first_err
    assert f"{bad} is corrupt or no image" in second_err


def test_two_processes_with_an_output_that_cannot_be_written(tmp_path, checkpoint, data_dir):
    (tmp_path / "out").touch()
    arguments = ["--checkpoint", checkpoint, "--data_dir", data_dir]
    (first, _, first_err), (second, _, second_err) = two_processes(
        *arguments, "--output_dir", tmp_path / "out"
    )
    assert (first, second) == (1, 1)
    assert "cannot write to" in first_err
    assert "error: stopped: process 0 has failed" in second_err


def test_two_processes_that_see_other_data(tmp_path, checkpoint):
    """One has a copy with another name in it; numbers of both would be of no set at all."""
    here, there = tmp_path / "here", tmp_path / "there"
    fake_archives.make_all(here, heavy=False)
    fake_archives.make_all(there, heavy=False)
    first = min((there / "imagenet-a").glob("*/*.jpg"))
    first.rename(first.with_name("other.jpg"))
    arguments = ["--checkpoint", checkpoint, "--datasets", "imagenet-a", "--data_dir", "."]
    found = two_processes(*arguments, "--output_dir", tmp_path / "out", directories=(here, there))
    assert [status for status, *_ in found] == [1, 1]
    assert all("process 1 does not see the same data as process 0" in err for *_, err in found)
