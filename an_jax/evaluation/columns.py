"""From predictions to the columns of the results: a function for each metric of the test sets."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from an_jax.data.sets.class_index import subset
from an_jax.data.sets.image_sets import CORRUPTIONS, EXTRA_CORRUPTIONS, PERTURBATIONS, SEVERITIES
from an_jax.data.sets.real_labels import labels_of
from an_jax.data.sets.test_sets import TestSet
from an_jax.errors import InputError
from an_jax.evaluation import metrics
from an_jax.evaluation.alexnet import ALEXNET_CLEAN_ERROR, ALEXNET_ERRORS
from an_jax.evaluation.predictions import ALL, Predictions

Scores = dict[str, float | dict]
Sets = Mapping[str, Predictions]  # by image set


class References(NamedTuple):
    """What scores are measured by besides the images' own labels; None where nothing needs it.

    Attributes:
        real_labels: of `read_real_labels`.
        alexnet_p: of `read_alexnet_p`; without it there is no mFR and no mT5D.
    """

    real_labels: Sequence[Sequence[int]] | None
    alexnet_p: dict[str, dict[str, float]] | None


def score(test_set: TestSet, sets: Sets, references: References) -> tuple[int, Scores]:
    """Scores a model on a test set.

    Args:
        test_set: an entry of TEST_SETS.
        sets: predictions for each of its image sets.
        references: what the test set needs.

    Returns:
        How many images count, and the scores by name; see docs/test_sets.md.

    Raises:
        InputError: no images of the classes, or file names without the number that ReaL's labels
            go by.
    """
    return METRICS[test_set.metric](test_set, sets, references)


def _top(predictions: Predictions, space=ALL) -> Scores:
    return {
        f"top{k}": metrics.top_k_accuracy(predictions.classes[space], predictions.labels, k)
        for k in (1, 5)
    }


def _accuracy(test_set, sets, references):
    """Top-1 and top-5; in a subset of classes, its images by its logits, and calibration."""
    predictions = sets[test_set.image_sets[0]]
    if test_set.classes is None:
        return len(predictions), _top(predictions)
    predictions = _of_subset(predictions, test_set)
    confidence = predictions.confidence[test_set.classes][:, 0]
    is_correct = predictions.classes[test_set.classes][:, 0] == predictions.labels
    return len(predictions), _top(predictions, test_set.classes) | {
        "unrestricted_top1": _top(predictions)["top1"],
        "rms_calibration_error": metrics.rms_calibration_error(confidence, is_correct),
        "aurra": metrics.aurra(confidence, is_correct),
    }


def _of_subset(predictions: Predictions, test_set: TestSet) -> Predictions:
    """The images of the test set's classes. Raises InputError if there are none."""
    kept = np.isin(predictions.labels, subset(test_set.classes))
    if not kept.any():
        raise InputError(f"no image is of the classes of {test_set.classes}")
    return predictions.select(kept)


def _real(test_set, sets, references):
    (predictions,) = (sets[name] for name in test_set.image_sets)
    names = [name.decode() for name in predictions.filenames]
    label_sets = labels_of(names, references.real_labels)
    if not any(label_sets):
        raise InputError("imagenet-1k-reassessed: none of the images has a label of ReaL's")
    top1, n = metrics.real_accuracy(predictions.classes[ALL], label_sets, 1)
    top5, n = metrics.real_accuracy(predictions.classes[ALL], label_sets, 5)
    return n, {"top1": top1, "top5": top5}


def _out_of_distribution(test_set, sets, references):
    """ImageNet-O: AUPR as its authors mean it, and the accuracies as published.

    The published columns compare the best of imagenet-a's classes with the class of imagenet-o at
    the same place in its list: a number near chance, of no meaning, kept for comparison.
    """
    outside, inside = (sets[name] for name in test_set.image_sets)
    inside = _of_subset(inside, test_set)
    confidence = [p.confidence[test_set.classes][:, 0] for p in (outside, inside)]
    is_outside = np.repeat([True, False], [len(outside), len(inside)])
    place = np.searchsorted(subset(test_set.classes), outside.labels)
    as_published = dataclasses.replace(outside, labels=np.array(subset("imagenet-a"))[place])
    return len(outside) + len(inside), _top(as_published, "imagenet-a") | {
        "aupr": metrics.average_precision(-np.concatenate(confidence), is_outside)
    }


def _corruption(test_set, sets, references):
    accuracies = {}
    for corruption in CORRUPTIONS + EXTRA_CORRUPTIONS:
        names = [f"imagenet-c/{corruption}/{severity}" for severity in SEVERITIES]
        if sets.keys() >= {*names}:  # the extra ones may not be there
            accuracies[corruption] = [_top(sets[name]) for name in names]
    errors = {c: [1 - each["top1"] for each in values] for c, values in accuracies.items()}
    clean_error = 1 - _top(sets["imagenet-1k"])["top1"]
    benchmark = [each for corruption in CORRUPTIONS for each in accuracies[corruption]]
    n = sum(len(sets[name]) for name in test_set.image_sets)
    return n, {
        "top1": float(np.mean([each["top1"] for each in benchmark])),
        "top5": float(np.mean([each["top5"] for each in benchmark])),
        "mce": metrics.mean_corruption_error(errors, ALEXNET_ERRORS),
        "relative_mce": metrics.relative_mean_corruption_error(
            errors, clean_error, ALEXNET_ERRORS, ALEXNET_CLEAN_ERROR
        ),
        "errors": errors,
    }


def _perturbation(test_set, sets, references):
    """Flip probability and top-5 distance; over AlexNet's where these are at hand."""
    flips, distances, n = {}, {}, 0
    for perturbation in PERTURBATIONS:
        predictions = sets[f"imagenet-p/{perturbation}"]
        videos = np.unique([name.rpartition(b"#")[0] for name in predictions.filenames])
        top5 = predictions.classes[ALL].reshape(len(videos), -1, 5)
        noise = perturbation.endswith("_noise")
        flips[perturbation] = metrics.flip_probability(top5[:, :, 0], noise)
        distances[perturbation] = metrics.top5_distance(top5, noise)
        n += len(predictions)
    found: Scores = {
        "mean_flip_probability": float(np.mean(list(flips.values()))),
        "mean_top5_distance": float(np.mean(list(distances.values()))),
        "flip_probability": flips,
        "top5_distance": distances,
    }
    if references.alexnet_p:
        found["mfr"] = metrics.mean_ratio(flips, references.alexnet_p["flip_probability"])
        found["mt5d"] = metrics.mean_ratio(distances, references.alexnet_p["top5_distance"])
    return n, found


METRICS: dict[str, Callable] = {
    "accuracy": _accuracy,
    "real": _real,
    "out_of_distribution": _out_of_distribution,
    "corruption": _corruption,
    "perturbation": _perturbation,
}
