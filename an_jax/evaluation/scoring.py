"""Scores a model on a test set from its predictions: one function for each metric in TEST_SETS."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from an_jax.data.sets.alexnet_c import ALEXNET_CLEAN_ERROR, ALEXNET_ERRORS
from an_jax.data.sets.class_index import subset
from an_jax.data.sets.image_sets import CORRUPTIONS, EXTRA_CORRUPTIONS, PERTURBATIONS, SEVERITIES
from an_jax.data.sets.real_labels import match_labels
from an_jax.data.sets.test_sets import TestSet
from an_jax.errors import InputError
from an_jax.evaluation import metrics
from an_jax.evaluation.predictions import ALL, Predictions

Scores = dict[str, float | dict]
Load = Callable[[str], Predictions]  # image set -> predictions


class References(NamedTuple):
    """Reference values that metrics need besides labels; None if no test set needs them.

    Attributes:
        real_labels: from `read_real_labels`.
        alexnet_p: from `read_alexnet_p`; mFR and mT5D need it.
    """

    real_labels: Sequence[Sequence[int]] | None
    alexnet_p: dict[str, dict[str, float]] | None


def score(test_set: TestSet, load: Load, references: References) -> tuple[int, Scores]:
    """Scores a model on a test set.

    Args:
        test_set: an entry of TEST_SETS; its optional sets are those that were found.
        load: returns the predictions for an image set of the test set.
        references: what the test set's metric needs.

    Returns:
        The number of images that top1 is of, and the scores by name (see docs/test_sets.md).

    Raises:
        InputError: no image has a class of the test set, or a file name lacks the number that ReaL
            needs.
    """
    return METRICS[test_set.metric](test_set, load, references)


def _accuracy(test_set: TestSet, load: Load, references: References) -> tuple[int, Scores]:
    """Top-1 and top-5 accuracy, negative log-likelihood, and calibration."""
    predictions, space = scored_predictions(test_set, load)
    confidence = predictions.confidence[space][:, 0]
    is_correct = predictions.classes[space][:, 0] == predictions.labels
    scores: Scores = {
        **_top_accuracies(predictions, space),
        "nll": float(np.mean(predictions.nll[space], dtype=np.float64)),
        "rms_calibration_error": metrics.rms_calibration_error(confidence, is_correct),
        "reliability": metrics.reliability(confidence, is_correct),
    }
    if space != ALL:  # ImageNet-A and -R
        scores["unrestricted_top1"] = _top_accuracies(predictions)["top1"]
        scores["aurra"] = metrics.aurra(confidence, is_correct)
    return len(predictions), scores


def scored_predictions(test_set: TestSet, load: Load) -> tuple[Predictions, str]:
    """Returns the predictions that a test set with the metric "accuracy" scores.

    Args:
        test_set: an entry of TEST_SETS, or of custom class folders.
        load: returns the predictions for its image set.

    Returns:
        The predictions for the images of the set's classes, and the label space in which they are
        scored.

    Raises:
        InputError: no image has a class of the test set.
    """
    predictions = load(test_set.image_sets[0])
    if test_set.classes is None:
        return predictions, ALL
    return _select_classes(predictions, test_set.classes), test_set.classes


def _real(test_set: TestSet, load: Load, references: References) -> tuple[int, Scores]:
    """Top-1 and top-5 accuracy by ReaL's labels; images without a label do not count."""
    assert references.real_labels is not None
    predictions = load("imagenet-1k")
    names = [name.decode() for name in predictions.filenames]
    label_sets = match_labels(names, references.real_labels)
    if not any(label_sets):
        raise InputError("imagenet-1k-reassessed: no image has a ReaL label; evaluate more images")
    top1, n = metrics.real_accuracy(predictions.classes[ALL], label_sets, 1)
    top5, n = metrics.real_accuracy(predictions.classes[ALL], label_sets, 5)
    return n, {"top1": top1, "top5": top5}


def _out_of_distribution(
    test_set: TestSet, load: Load, references: References
) -> tuple[int, Scores]:
    """AUPR of ImageNet-O as its authors define it, and the accuracies as published.

    The published accuracies use the logits of imagenet-a's classes; an image in the folder of
    imagenet-o's i-th class gets imagenet-a's i-th class as label. They are near chance and serve
    for comparison only.
    """
    assert test_set.classes is not None
    outside = load("imagenet-o")
    inside = _select_classes(load("imagenet-1k"), test_set.classes)
    confidence = [p.confidence[test_set.classes][:, 0] for p in (outside, inside)]
    is_outside = np.repeat([True, False], [len(outside), len(inside)])
    positions = np.searchsorted(subset(test_set.classes), outside.labels)
    as_published = dataclasses.replace(outside, labels=np.array(subset("imagenet-a"))[positions])
    return len(outside), {
        **_top_accuracies(as_published, "imagenet-a"),
        "aupr": metrics.average_precision(-np.concatenate(confidence), is_outside),
        "aupr_n": len(outside) + len(inside),
    }


def _corruption(test_set: TestSet, load: Load, references: References) -> tuple[int, Scores]:
    """mCE, relative mCE, the errors of each corruption, and the benchmark's mean accuracies."""
    clean = load("imagenet-1k")
    n = 0
    top1, top5 = [], []
    errors = {}
    available = {*test_set.image_sets, *test_set.optional_sets}
    for corruption in CORRUPTIONS + EXTRA_CORRUPTIONS:
        names = [f"imagenet-c/{corruption}/{severity}" for severity in SEVERITIES]
        if not available.issuperset(names):
            continue
        accuracies = []
        for name in names:  # one file in memory at a time
            predictions = load(name)
            accuracies.append(_top_accuracies(predictions))
            if corruption in CORRUPTIONS:
                n += len(predictions)
        errors[corruption] = [1 - accuracy["top1"] for accuracy in accuracies]
        if corruption in CORRUPTIONS:
            top1 += [accuracy["top1"] for accuracy in accuracies]
            top5 += [accuracy["top5"] for accuracy in accuracies]
    clean_error = 1 - _top_accuracies(clean)["top1"]
    return n, {
        "top1": float(np.mean(top1)),
        "top5": float(np.mean(top5)),
        "mce": metrics.mean_corruption_error(errors, ALEXNET_ERRORS),
        "relative_mce": metrics.relative_mean_corruption_error(
            errors, clean_error, ALEXNET_ERRORS, ALEXNET_CLEAN_ERROR
        ),
        "relative_mce_n": len(clean) + n,
        "errors": errors,
    }


def _perturbation(test_set: TestSet, load: Load, references: References) -> tuple[int, Scores]:
    """Flip probabilities and top-5 distances; mFR and mT5D if AlexNet's values are known."""
    flips, distances, n = {}, {}, 0
    for perturbation in PERTURBATIONS:
        predictions = load(f"imagenet-p/{perturbation}")
        videos = np.unique([name.rpartition(b"#")[0] for name in predictions.filenames])
        top5 = predictions.classes[ALL].reshape(len(videos), -1, 5)
        is_noise = perturbation.endswith("_noise")
        flips[perturbation] = metrics.flip_probability(top5[:, :, 0], is_noise)
        distances[perturbation] = metrics.top5_distance(top5, is_noise)
        n += len(predictions)
    scores: Scores = {
        "mean_flip_probability": float(np.mean(list(flips.values()))),
        "mean_top5_distance": float(np.mean(list(distances.values()))),
        "flip_probability": flips,
        "top5_distance": distances,
    }
    if references.alexnet_p:
        scores["mfr"] = metrics.mean_ratio(flips, references.alexnet_p["flip_probability"])
        scores["mt5d"] = metrics.mean_ratio(distances, references.alexnet_p["top5_distance"])
    return n, scores


def _top_accuracies(predictions: Predictions, space: str = ALL) -> dict[str, float]:
    return metrics.top_accuracies(predictions.classes[space], predictions.labels)


def _select_classes(predictions: Predictions, classes: str) -> Predictions:
    """Selects the images of a subset of classes. Raises InputError if there are none."""
    is_member = np.isin(predictions.labels, subset(classes))
    if not is_member.any():
        raise InputError(f"no image is of the classes of {classes}; evaluate more images")
    return predictions.select(is_member)


METRICS: dict[str, Callable[[TestSet, Load, References], tuple[int, Scores]]] = {
    "accuracy": _accuracy,
    "real": _real,
    "out_of_distribution": _out_of_distribution,
    "corruption": _corruption,
    "perturbation": _perturbation,
}
