"""Metrics equal slow loops over their definitions, and values computed by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from an_jax.data.sets.alexnet_c import ALEXNET_CLEAN_ERROR, ALEXNET_ERRORS
from an_jax.evaluation import metrics

seeds = st.integers(0, 2**32 - 1)
noises = pytest.mark.parametrize("is_noise", [False, True])
examples = settings(derandomize=True, deadline=None, database=None, max_examples=60)


def draw_rankings(rng, *shape):
    """Draws rankings of 8 classes, best first, [*shape, 8]."""
    return rng.permuted(np.broadcast_to(np.arange(8), (*shape, 8)), axis=-1)


def draw_scores(rng):
    """Draws scores with many ties, and flags."""
    n = rng.integers(1, 41)
    return rng.integers(0, rng.integers(2, 30), n) / 30, rng.random(n) < rng.random()


@pytest.mark.parametrize("k", [1, 3, 8])
@examples
@given(seed=seeds)
def test_accuracies_equal_loops(k, seed):
    rng = np.random.default_rng(seed)
    classes = draw_rankings(rng, rng.integers(1, 20))
    labels = rng.integers(0, 8, len(classes))
    hits = sum(label in list(row)[:k] for row, label in zip(classes, labels, strict=True))
    assert metrics.top_k_accuracy(classes, labels, k) == hits / len(classes)

    label_sets = [rng.choice(8, rng.integers(0, 4), replace=False) for _ in classes]
    label_sets[0] = [*label_sets[0], 5]
    pairs = [(list(r)[:k], s) for r, s in zip(classes, label_sets, strict=True) if len(s) > 0]
    hits = sum(any(c in s for c in row) for row, s in pairs)
    assert metrics.real_accuracy(classes, label_sets, k) == (hits / len(pairs), len(pairs))


def test_accuracies_by_hand():
    classes = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9], [1, 2, 3]])
    assert [metrics.top_k_accuracy(classes, [1, 5, 0, 3], k) for k in (1, 2, 3)] == [
        0.25,
        0.5,
        0.75,
    ]
    label_sets = [[], [5, 4], [8], [9, 1, 0]]
    assert metrics.real_accuracy(classes, label_sets, 1) == (2 / 3, 3)
    assert metrics.real_accuracy(classes, label_sets, 2) == (1.0, 3)


def test_top5_of_fewer_than_five_classes():
    classes, labels = np.array([[0, 1], [1, 0], [1, 0]]), np.array([0, 0, 1])
    assert metrics.top_accuracies(classes, labels) == {"top1": 2 / 3, "top5": 1.0}


@examples
@given(seed=seeds)
def test_average_precision_equals_scikit_learn(seed):
    values, is_positive = draw_scores(np.random.default_rng(seed))
    is_positive[-1] = True
    expected = sklearn_metrics.average_precision_score(is_positive, values)
    assert metrics.average_precision(values, is_positive) == pytest.approx(expected, abs=1e-12)


def test_average_precision_by_hand():
    def score(values, flags):
        return metrics.average_precision(np.array(values), np.array(flags, bool))

    assert score([3, 2, 1], [1, 0, 1]) == pytest.approx((1 + 2 / 3) / 2)
    assert score([3, 2, 1], [0, 0, 1]) == pytest.approx(1 / 3)
    assert score([7, 7, 7, 7], [1, 0, 0, 0]) == score([7, 7, 7, 7], [0, 0, 0, 1]) == 0.25
    assert score([np.inf, np.inf, 0, -np.inf], [1, 1, 0, 0]) == 1


@examples
@given(seed=seeds, bin_size=st.integers(1, 50))
def test_rms_calibration_error_equals_loops(seed, bin_size):
    confidence, is_correct = draw_scores(np.random.default_rng(seed))
    images = sorted(zip(confidence, is_correct, strict=True), key=lambda image: image[0])
    total = 0.0
    while images:
        size = bin_size if len(images) >= 2 * bin_size else len(images)
        gap = sum(c for c, _ in images[:size]) / size - sum(f for _, f in images[:size]) / size
        total += size / len(confidence) * gap**2
        images = images[size:]
    actual = metrics.rms_calibration_error(confidence, is_correct, bin_size)
    assert actual == pytest.approx(math.sqrt(total), abs=1e-12)


def test_rms_calibration_error_by_hand():
    error = metrics.rms_calibration_error
    quarters = np.repeat([0.25, 0.75], 100)
    calibrated = np.concatenate([np.arange(100) < 25, np.arange(100) < 75])
    assert error(quarters, calibrated) == 0
    assert error(quarters[::-1], calibrated[::-1]) == 0
    # The last, most confident bin counts: gaps 0 and 1/4.
    assert error(quarters, calibrated | (quarters > 0.5)) == pytest.approx(math.sqrt(1 / 32))
    # Bins of 100 and 150: gaps 0 and 1/2.
    confidence = np.repeat([0.0, 0.5], [100, 150]).astype(np.float32)
    assert error(confidence, confidence > 0) == pytest.approx(math.sqrt(0.6 * 0.25))
    assert error([0.9, 0.5, 0.1], [False, True, True]) == pytest.approx(1 / 6)  # one bin
    # Equal confidences stay in order: gaps 1/2 and -1/2; mixed, they would be 0.
    assert error([0.5] * 200, [False] * 100 + [True] * 100) == 0.5


def test_reliability_by_hand():
    confidence = [0.1, 0.15, 0.2, 0.9, 1.0]  # two bins of five: up to 0.2, and from 0.8
    assert metrics.reliability(confidence, [False, True, True, True, True], 5) == {
        "n": [2, 1, 2],
        "confidence": [pytest.approx(0.125), 0.2, pytest.approx(0.95)],
        "accuracy": [0.5, 1.0, 1.0],
    }


@examples
@given(seed=seeds, num_bins=st.integers(1, 20))
def test_reliability_keeps_the_means(seed, num_bins):
    confidence, is_correct = draw_scores(np.random.default_rng(seed))
    bins = metrics.reliability(confidence, is_correct, num_bins)
    assert sum(bins["n"]) == len(confidence)
    for name, values in (("confidence", confidence), ("accuracy", is_correct)):
        assert np.dot(bins["n"], bins[name]) == pytest.approx(np.sum(values), abs=1e-9)


@examples
@given(seed=seeds)
def test_aurra_equals_loops(seed):
    confidence, is_correct = draw_scores(np.random.default_rng(seed))
    images = sorted(zip(confidence, is_correct, strict=True), key=lambda image: -image[0])
    flags = [bool(flag) for _, flag in images]
    expected = sum(sum(flags[:k]) / k for k in range(1, len(flags) + 1)) / len(flags)
    assert metrics.aurra(confidence, is_correct) == pytest.approx(expected, abs=1e-12)


def test_aurra_by_hand():
    assert metrics.aurra([0.3, 0.9, 0.5], [True] * 3) == 1
    assert metrics.aurra([0.3, 0.9, 0.5], [False] * 3) == 0
    assert metrics.aurra([0.1, 0.9], [False, True]) == 0.75  # 1, 1/2
    assert metrics.aurra([0.9, 0.1], [False, True]) == 0.25  # 0, 1/2
    assert metrics.aurra([0.5, 0.5], [True, False]) == 0.75
    assert metrics.aurra([0.5, 0.5], [False, True]) == 0.25


def test_alexnet_errors():
    means = {corruption: sum(row) / 5 for corruption, row in ALEXNET_ERRORS.items()}
    assert len(means) == 15
    assert {len(row) for row in ALEXNET_ERRORS.values()} == {5}
    assert means["gaussian_noise"] == pytest.approx(0.886428)
    assert means["jpeg_compression"] == pytest.approx(0.606500)
    assert sum(means.values()) / 15 == pytest.approx(0.788993, abs=5e-7)
    assert pytest.approx(0.43478) == ALEXNET_CLEAN_ERROR


def test_ratios_to_a_baseline():
    mce, relative = metrics.mean_corruption_error, metrics.relative_mean_corruption_error
    assert mce(ALEXNET_ERRORS, ALEXNET_ERRORS) == 1
    assert relative(ALEXNET_ERRORS, ALEXNET_CLEAN_ERROR, ALEXNET_ERRORS, ALEXNET_CLEAN_ERROR) == 1
    halves = {corruption: [e / 2 for e in row] for corruption, row in ALEXNET_ERRORS.items()}
    assert mce({**halves, "saturate": [1.0] * 5}, ALEXNET_ERRORS) == pytest.approx(0.5)
    # Ratios of sums, not of single errors, and their mean: (1.0 / 2.0 + 1.5 / 1.0) / 2.
    errors = {"fog": [0.1, 0.1, 0.2, 0.2, 0.4], "snow": [0.3] * 5}
    baseline = {"snow": [0.2] * 5, "fog": [0.2, 0.3, 0.4, 0.5, 0.6]}
    assert mce(errors, baseline) == pytest.approx(1.0)
    # (0.5 / 1.5 + 1.0 / 0.5) / 2.
    assert relative(errors, 0.1, baseline, 0.1) == pytest.approx(7 / 6)
    # (0.5 / 2.0 + 1.0 / 1.0) / 2: each is less its own clean error.
    assert relative(errors, 0.1, baseline, 0.0) == pytest.approx(0.625)
    values = {"tilt": 0.1, "snow": 0.3, "shear": 9.0}
    assert metrics.mean_ratio(values, {"snow": 0.6, "tilt": 0.1}) == pytest.approx(0.75)


def published_distance(reference, frame):
    """Top-5 distance as written in section 4.2; ranks start at 1."""
    total = 0
    for i in range(1, 6):
        moved_to = list(frame).index(reference[i - 1]) + 1
        for j in range(min(i, moved_to) + 1, max(i, moved_to) + 1):
            total += 1 <= j - 1 <= 5
    return total


@noises
@examples
@given(seed=seeds)
def test_perturbation_scores_equal_loops(is_noise, seed):
    rng = np.random.default_rng(seed)
    videos = draw_rankings(rng, rng.integers(1, 4), rng.integers(2, 7))
    flips, distances = [], []
    for video in videos:
        references = [video[0] if is_noise else video[j - 1] for j in range(1, len(video))]
        pairs = list(zip(references, video[1:], strict=True))
        flips.append(sum(a[0] != b[0] for a, b in pairs) / len(pairs))
        distances.append(sum(published_distance(a, b) for a, b in pairs) / len(pairs))
    flip_probability = metrics.flip_probability(videos[..., 0], is_noise)
    assert flip_probability == pytest.approx(sum(flips) / len(videos), abs=1e-12)
    distance = metrics.top5_distance(videos[..., :5], is_noise)
    assert distance == pytest.approx(sum(distances) / len(videos), abs=1e-12)


def test_perturbation_scores_by_hand():
    top1 = np.array([[1, 2, 2, 1, 1], [3, 3, 3, 3, 3]])
    assert metrics.flip_probability(top1, is_noise=False) == 2 / 8
    assert metrics.flip_probability(top1[:, :4], is_noise=True) == 2 / 6
    assert metrics.flip_probability(np.array([[1, 2, 2, 2, 2]]), is_noise=False) == 1 / 4
    assert metrics.flip_probability(np.array([[1, 2, 2, 2, 2]]), is_noise=True) == 1

    def distance(*frames, is_noise=False):
        return metrics.top5_distance(np.array([frames]), is_noise)

    ranking = (1, 2, 3, 4, 5)
    assert distance(ranking, ranking) == 0
    assert distance(ranking, (6, 7, 8, 9, 10)) == 15
    assert distance(ranking, (2, 1, 3, 4, 5)) == 2
    assert distance(ranking, (1, 2, 3, 4, 6)) == 1
    # Not symmetric: the leader falls out, 5 + 4 * 1; the last falls out, 4 * 1 + 1.
    assert distance(ranking, (2, 3, 4, 5, 6)) == 9
    assert distance((2, 3, 4, 5, 6), ranking) == 5
    assert distance(ranking, (2, 1, 3, 4, 5), ranking, is_noise=False) == 2
    assert distance(ranking, (2, 1, 3, 4, 5), ranking, is_noise=True) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.top_k_accuracy(np.ones((0, 5)), [], 1), "0 labels"),
        (lambda: metrics.top_k_accuracy(np.ones((2, 5)), [1, 1], 6), "k = 6"),
        (lambda: metrics.real_accuracy(np.ones((2, 5)), [[1]], 1), "1 labels"),
        (lambda: metrics.real_accuracy(np.ones((2, 5)), [[], []], 1), "no image"),
        (lambda: metrics.average_precision([1.0, 2.0], [False, False]), "nothing"),
        (lambda: metrics.average_precision([], []), "shapes"),
        (lambda: metrics.rms_calibration_error([0.5], [True], 0), "bin_size"),
        (lambda: metrics.aurra([], []), "shapes"),
        (lambda: metrics.aurra([0.5, 0.5], [True]), "shapes"),
        (lambda: metrics.aurra([0.5, math.nan], [True, True]), "NaN"),
        (lambda: metrics.mean_corruption_error({"fog": [1] * 5}, ALEXNET_ERRORS), "contrast"),
        (lambda: metrics.mean_corruption_error({"a": [1] * 4}, {"a": [1] * 5}), "a has 4"),
        (lambda: metrics.mean_corruption_error({}, {}), "empty"),
        (lambda: metrics.mean_ratio({"tilt": 1.0}, {"tilt": 1.0, "snow": 1.0}), "snow"),
        (lambda: metrics.flip_probability(np.ones((3, 1), int), False), "shape"),
        (lambda: metrics.flip_probability(np.ones((0, 3), int), True), "shape"),
        (lambda: metrics.top5_distance(np.ones((2, 6), int), True), "shape"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()
