"""Scores of every test set, against slow formulas on probabilities from Pillow and NumPy."""

import dataclasses
import functools
import itertools
import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from an_jax.data.sets.alexnet_c import ALEXNET_CLEAN_ERROR, ALEXNET_ERRORS
from an_jax.data.sets.class_index import subset
from an_jax.data.sets.image_sets import (
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    PERTURBATIONS,
    SEVERITIES,
)
from an_jax.data.sets.opening import open_image_set
from an_jax.data.sets.test_sets import PUBLISHED, TEST_SETS, expand_names
from an_jax.data.tf_on_cpu import tf
from an_jax.evaluation.evaluator import Evaluator
from an_jax.evaluation.predictions import ALL, Predictions
from an_jax.evaluation.scoring import References, score
from tests import fake_archives, pictures
from tests.small_model import softmax_of
from tests.suite import entries, run


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, small_checkpoint, archives):
    """The output directory of an evaluation on all test sets but imagenet-c, of 96 image sets."""
    out = tmp_path_factory.mktemp("out")
    names = [name for name in expand_names("all") if name != "imagenet-c"]
    arguments = ["--checkpoint", small_checkpoint, "--data_dir", archives, "--output_dir", out]
    assert run(*arguments, "--datasets", ",".join(names)) == 0
    return out


@pytest.fixture(scope="module")
def truth(small_checkpoint, archives):
    """Returns an image set's labels, file names, and probabilities [n, 1000]."""

    @functools.cache
    def read(name):
        source = open_image_set(name, str(archives), True)
        images = [
            pictures.decode((archives / source.root / file).read_bytes())
            for file in source.filenames
        ]
        return source.labels, source.filenames, softmax_of(small_checkpoint, images)

    return read


def test_everything_is_reported(evaluated):
    written = entries(evaluated)
    assert list(written) == [name for name in expand_names("all") if name != "imagenet-c"]
    assert {TEST_SETS[name].csv for name in written} < {p.name for p in evaluated.iterdir()}
    table = (evaluated / "results.md").read_text()
    assert all(name in table for name in written)


def top(labels, probabilities, k, classes=range(1000)):
    """Returns the fraction of labels among the k most probable of `classes`."""
    classes = np.array(classes)
    best = classes[np.argsort(-probabilities[:, classes], axis=1)[:, :k]]
    return np.mean([label in row for label, row in zip(labels, best, strict=True)])


def nll(labels, probabilities):
    """Returns the mean negative log-likelihood of labels, which are columns."""
    return -np.mean(np.log([row[label] for label, row in zip(labels, probabilities, strict=True)]))


def select_classes(truth, name, classes):
    labels, _, probabilities = truth(name)
    kept = np.isin(labels, classes)
    return labels[kept], probabilities[kept]


@pytest.mark.parametrize("name", ["imagenet-1k", *PUBLISHED[2:6]])
def test_accuracy(evaluated, truth, name):
    labels, _, probabilities = truth(name)
    entry = entries(evaluated)[name]
    assert entry["top5"] > 0
    assert entry["n"] == len(labels)
    assert entry["top1"] == top(labels, probabilities, 1)
    assert entry["top5"] == top(labels, probabilities, 5)
    assert entry["nll"] == pytest.approx(nll(labels, probabilities), rel=1e-4)
    is_correct = probabilities.argmax(axis=1) == labels
    gap = probabilities.max(axis=1).mean() - is_correct.mean()  # of so few images there is one bin
    assert entry["rms_calibration_error"] == pytest.approx(abs(gap), abs=1e-4)


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
    labels, probabilities = select_classes(truth, images, subset(classes))
    entry = entries(evaluated)[name]
    assert entry["n"] == len(labels) >= 5
    assert entry["top1"] == top(labels, probabilities, 1, subset(classes))
    assert entry["top5"] == top(labels, probabilities, 5, subset(classes))
    assert entry["unrestricted_top1"] == top(labels, probabilities, 1)
    restricted = probabilities[:, subset(classes)]
    restricted /= restricted.sum(axis=1, keepdims=True)
    columns = np.searchsorted(subset(classes), labels)
    assert entry["nll"] == pytest.approx(nll(columns, restricted), rel=1e-4)
    right = np.array(subset(classes))[restricted.argmax(axis=1)] == labels
    gap = restricted.max(axis=1).mean() - right.mean()  # of so few images there is one bin
    assert entry["rms_calibration_error"] == pytest.approx(abs(gap), abs=1e-4)
    order = np.argsort(-restricted.max(axis=1))
    curve = np.cumsum(right[order]) / np.arange(1, len(right) + 1)
    assert entry["aurra"] == pytest.approx(curve.mean())


def test_real_labels(evaluated, truth):
    _, names, probabilities = truth("imagenet-1k")
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
    """Tests AUPR, and the published accuracies, which use imagenet-a's classes."""
    classes = subset("imagenet-o")
    labels, _, outside = truth("imagenet-o")
    _, inside = select_classes(truth, "imagenet-1k", classes)
    both = np.concatenate([outside, inside])[:, classes]
    confidence = both.max(axis=1) / both.sum(axis=1)
    is_outside = np.arange(len(both)) < len(outside)
    entry = entries(evaluated)["imagenet-o"]
    assert (entry["n"], entry["aupr_n"]) == (len(outside), len(both))
    assert entry["expected"] == 2_000
    assert f"imagenet-o: aupr_n = {len(both)} of 12000" in (evaluated / "results.md").read_text()
    assert entry["aupr"] == pytest.approx(average_precision_score(is_outside, -confidence))
    published = [subset("imagenet-a")[classes.index(label)] for label in labels]
    for k in (1, 5):
        assert entry[f"top{k}"] == top(published, outside, k, subset("imagenet-a"))


def check_imagenet_c(entry, top1, extra=EXTRA_CORRUPTIONS):
    """Compares results with the top-1 accuracies of the image sets."""
    errors = {
        c: [1 - top1[f"imagenet-c/{c}/{severity}"] for severity in SEVERITIES]
        for c in (*CORRUPTIONS, *extra)
    }
    assert entry["errors"] == errors
    ratios = [sum(errors[c]) / sum(ALEXNET_ERRORS[c]) for c in CORRUPTIONS]
    assert entry["mce"] == pytest.approx(np.mean(ratios))
    assert entry["top1"] == pytest.approx(1 - np.mean([errors[c] for c in CORRUPTIONS]))
    assert 0 < entry["top1"] < 1
    clean = 1 - top1["imagenet-1k"]
    relative = [
        (sum(errors[c]) - 5 * clean) / (sum(ALEXNET_ERRORS[c]) - 5 * ALEXNET_CLEAN_ERROR)
        for c in CORRUPTIONS
    ]
    assert entry["relative_mce"] == pytest.approx(np.mean(relative))


def is_extra(name):
    return name.startswith(tuple(f"imagenet-c/{corruption}/" for corruption in EXTRA_CORRUPTIONS))


def link_imagenet_c(data_dir, archives, corruptions):
    """Makes a data directory with imagenet-1k and some corruptions."""
    for name in ("imagenet-1k/val", *(f"imagenet-c/{c}" for c in corruptions)):
        (data_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (data_dir / name).symlink_to(archives / name)
    return data_dir


@pytest.mark.parametrize("extra", [EXTRA_CORRUPTIONS, EXTRA_CORRUPTIONS[1:]])
def test_imagenet_c(tmp_path, small_checkpoint, archives, monkeypatch, extra):
    """Every image set is opened, predicted, kept and scored; random classes replace the model's.

    Extra corruptions are reported if they are there.
    """
    predictions, is_cropped = {}, {}

    def predict(self, params, batch_stats, source, *, title, **options):
        name = title.removeprefix("small on ")
        rng = np.random.default_rng(len(predictions))
        orders = np.array([rng.permutation(8)[:5] for _ in source.labels])
        predictions[name] = Predictions(
            np.array(source.filenames, np.bytes_),
            source.labels,
            {ALL: (source.labels[:, None] + orders) % 1000},
            {ALL: np.zeros(orders.shape, np.float32)},
            {ALL: np.zeros(len(orders), np.float32)},
        )
        is_cropped[name] = options["is_cropped"]
        return predictions[name]

    monkeypatch.setattr(Evaluator, "__call__", predict)
    data_dir = link_imagenet_c(tmp_path / "data", archives, (*CORRUPTIONS, *extra))
    arguments = ["--checkpoint", small_checkpoint, "--data_dir", data_dir]
    assert run(*arguments, "--output_dir", tmp_path, "--datasets", "imagenet-c") == 0
    hits = {name: p.classes[ALL] == p.labels[:, None] for name, p in predictions.items()}
    entry = entries(tmp_path)["imagenet-c"]
    check_imagenet_c(entry, {name: np.mean(h[:, 0]) for name, h in hits.items()}, extra)
    benchmark = [h for name, h in hits.items() if "/" in name and not is_extra(name)]
    assert entry["top5"] == pytest.approx(np.mean([h.any(axis=1).mean() for h in benchmark]))
    assert entry["n"] == sum(map(len, benchmark)) == 15 * 5 * 2
    assert entry["relative_mce_n"] == 20 + 15 * 5 * 2
    assert is_cropped == {name: name != "imagenet-1k" for name in hits}


@pytest.mark.slow
def test_imagenet_c_with_the_model(tmp_path, small_checkpoint, archives, truth):
    arguments = ["--checkpoint", small_checkpoint, "--data_dir", archives]
    assert run(*arguments, "--output_dir", tmp_path, "--datasets", "imagenet-c") == 0
    corruptions = CORRUPTIONS + EXTRA_CORRUPTIONS
    names = [f"imagenet-c/{c}/{severity}" for c in corruptions for severity in SEVERITIES]
    top1 = {
        name: top(labels, probabilities, 1)
        for name in ("imagenet-1k", *names)
        for labels, _, probabilities in [truth(name)]
    }
    check_imagenet_c(entries(tmp_path)["imagenet-c"], top1)


def test_imagenet_c_without_the_extra_corruptions():
    """imagenet-c is scored without its extra corruptions, or with those that are complete."""
    ranks = np.array([[3, 2, 1, 0, 5], [7, 1, 2, 3, 4]])
    one = Predictions(np.array([b"a", b"b"]), np.array([3, 4]), {ALL: ranks}, {}, {})
    test_set = TEST_SETS["imagenet-c"]
    references = References(None, None)
    for available in (test_set.optional_sets[:-1], ()):  # the last corruption lacks a severity
        partial = dataclasses.replace(test_set, optional_sets=available)
        n, scores = score(partial, lambda name: one, references)
        complete = EXTRA_CORRUPTIONS[:-1] if available else ()
        check_imagenet_c(scores, dict.fromkeys((*test_set.image_sets, *available), 0.5), complete)
        assert (n, scores["relative_mce_n"], scores["top5"]) == (2 * 75, 2 * 76, 1)


def slow_distance(probabilities):
    """Returns the mean top-5 distance between adjacent frames, from the ranks of all classes."""
    distances = []
    for video in np.split(probabilities, fake_archives.VIDEOS):
        ranks = [np.argsort(np.argsort(-frame)) for frame in video]
        for before, after in itertools.pairwise(ranks):
            leaders = np.argsort(before)[:5]
            costs = np.abs(np.minimum(before, 5) - np.minimum(after, 5))
            distances.append(costs[leaders].sum())
    return np.mean(distances)


def test_imagenet_p(evaluated, small_checkpoint, archives):
    """Scores equal slow loops over the frames that PyAV decodes."""
    entry = entries(evaluated)["imagenet-p"]
    assert entry["n"] == fake_archives.VIDEOS * (9 * 31 + 41)
    assert list(entry["flip_probability"]) == list(PERTURBATIONS)
    for name in ("snow", "gaussian_noise", "translate"):
        source = open_image_set(f"imagenet-p/{name}", str(archives), True)
        images = [e["image"] for e in source.read(range(len(source))).as_numpy_iterator()]
        drawn = fake_archives.frames(10 * PERTURBATIONS.index(name), 4)[3]
        assert np.abs(np.float32(images[3]) - drawn).mean() < 12
        probabilities = softmax_of(small_checkpoint, images)
        best = probabilities.argmax(axis=1).reshape(fake_archives.VIDEOS, -1)
        before = best[:, :1] if name.endswith("noise") else best[:, :-1]
        assert entry["flip_probability"][name] == np.mean(best[:, 1:] != before)
        if name == "snow":
            assert entry["top5_distance"][name] == pytest.approx(slow_distance(probabilities))
    assert entry["mean_flip_probability"] == np.mean(list(entry["flip_probability"].values()))
    assert entry["mean_top5_distance"] == np.mean(list(entry["top5_distance"].values()))
    alexnet = fake_archives.ALEXNET_P
    mfr = entry["mean_flip_probability"] / alexnet["flip_probability"]
    assert entry["mfr"] == pytest.approx(mfr)
    mt5d = entry["mean_top5_distance"] / alexnet["top5_distance"]
    assert entry["mt5d"] == pytest.approx(mt5d)


def test_imagenet_p_without_alexnet():
    def load(name):
        names = np.array([f"{name}.mp4#{i}".encode() for i in range(3)])
        classes = {ALL: np.tile(np.arange(5), (3, 1))}
        return Predictions(names, np.zeros(3, np.int32), classes, {}, {})

    n, scores = score(TEST_SETS["imagenet-p"], load, References(None, None))
    assert n == 3 * len(PERTURBATIONS)
    assert scores["mean_flip_probability"] == scores["mean_top5_distance"] == 0
    assert not {"mfr", "mt5d"} & scores.keys()


def test_unreadable_references_are_not_called_damaged(
    tmp_path, small_checkpoint, capsys, monkeypatch
):
    def refuse(path):
        raise tf.errors.UnavailableError(None, None, "503")

    monkeypatch.setattr(tf.io.gfile, "exists", refuse)
    arguments = ["--checkpoint", small_checkpoint, "--data_dir", tmp_path, "--output_dir", tmp_path]
    for name, what in (("imagenet-1k-reassessed", "ReaL's labels"), ("imagenet-p", "alexnet.json")):
        assert run(*arguments, "--datasets", name) == 1
        message = capsys.readouterr().err
        assert what in message
        assert message.endswith(
            "cannot be read: 503; wait until the network and the storage work\n"
        )


def test_damaged_table_of_alexnet(tmp_path, small_checkpoint, capsys):
    table = {key: dict.fromkeys(PERTURBATIONS[1:], 0.5) for key in fake_archives.ALEXNET_P}
    fake_archives.write(tmp_path / "imagenet-p/alexnet.json", json.dumps(table).encode())
    arguments = ["--checkpoint", small_checkpoint, "--data_dir", tmp_path]
    assert run(*arguments, "--output_dir", tmp_path / "out", "--datasets", "imagenet-p") == 1
    assert "does not hold flip_probability and top5_distance" in capsys.readouterr().err
