"""What is scored on each test set, against slow formulas, Pillow and NumPy."""

import itertools
import json
import shutil

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from an_jax.data.sets.alexnet_c import ALEXNET_ERRORS
from an_jax.data.sets.alexnet_p import KEYS
from an_jax.data.sets.class_index import subset
from an_jax.data.sets.image_sets import (
    CORRUPTIONS,
    PERTURBATIONS,
    open_image_set,
)
from an_jax.data.sets.test_sets import PUBLISHED, TEST_SETS, expand_names
from tests import fake_archives, pictures
from tests.small_model import softmax_of
from tests.suite import entries, run


@pytest.fixture(scope="module")
def truth(small_checkpoint, archives):
    """Image set -> its labels, file names, and probabilities [n, 1000] by Pillow and NumPy."""

    def probabilities(name):
        source = open_image_set(name, str(archives), True)
        images = [
            pictures.decode((archives / source.root / file).read_bytes())
            for file in source.filenames
        ]
        return source.labels, source.filenames, softmax_of(small_checkpoint, images)

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


def test_imagenet_p(evaluated, small_checkpoint, archives):
    """Frames as PyAV decodes them, compared one by one."""
    entry = entries(evaluated)["imagenet-p"]
    assert entry["n"] == fake_archives.VIDEOS * (9 * 31 + 41)
    assert list(entry["flip_probability"]) == list(PERTURBATIONS)
    for name in ("snow", "gaussian_noise", "translate"):
        source = open_image_set(f"imagenet-p/{name}", str(archives), True)
        images = [e["image"] for e in source.read(range(len(source))).as_numpy_iterator()]
        assert (
            np.abs(
                np.float32(images[3]) - fake_archives.frames(10 * PERTURBATIONS.index(name), 4)[3]
            ).mean()
            < 12
        )
        probabilities = softmax_of(small_checkpoint, images)
        best = probabilities.argmax(axis=1).reshape(fake_archives.VIDEOS, -1)
        before = best[:, :1] if name.endswith("noise") else best[:, :-1]
        assert entry["flip_probability"][name] == np.mean(best[:, 1:] != before)
        if name == "snow":
            assert entry["top5_distance"][name] == pytest.approx(slow_distance(probabilities))
    assert entry["mean_flip_probability"] == np.mean(list(entry["flip_probability"].values()))


def test_imagenet_p_by_alexnet(tmp_path, small_checkpoint, archives, capsys):
    """Predictions are kept; what they are divided by comes later, or is no table."""
    whole = {key: dict.fromkeys(PERTURBATIONS, v) for key, v in zip(KEYS, (0.5, 4), strict=True)}
    arguments = [
        "--checkpoint",
        small_checkpoint,
        "--data_dir",
        tmp_path,
        "--datasets",
        "imagenet-p",
    ]
    arguments += ["--output_dir", tmp_path / "out"]
    shutil.copytree(archives / "imagenet-p", tmp_path / "imagenet-p")
    fake_archives.write(tmp_path / "imagenet-p/alexnet.json", json.dumps(whole).encode())
    assert run(*arguments) == 0
    entry = entries(tmp_path / "out")["imagenet-p"]
    assert entry["mfr"] == pytest.approx(entry["mean_flip_probability"] / 0.5)
    assert entry["mt5d"] == pytest.approx(entry["mean_top5_distance"] / 4)
    del whole["top5_distance"]["snow"]
    fake_archives.write(tmp_path / "imagenet-p/alexnet.json", json.dumps(whole).encode())
    assert run(*arguments) == 1
    assert "does not hold flip_probability and top5_distance" in capsys.readouterr().err
