"""Metrics of the ImageNet test sets as pure NumPy functions of predictions.

They return fractions, not percent (an mCE of 0.767, not 76.7), and raise ValueError on empty input.
Sources:
    Beyer et al. 2020: Are we done with ImageNet? arXiv:2006.07159.
    Hendrycks et al. 2021: Natural Adversarial Examples, CVPR, arXiv:1907.07174.
    Hendrycks & Dietterich 2019: Benchmarking Neural Network Robustness to Common Corruptions and
        Perturbations, ICLR, arXiv:1903.12261; the metrics are in section 4.2.
    Guo et al. 2017: On Calibration of Modern Neural Networks, ICML, arXiv:1706.04599.
"""

from collections.abc import Mapping, Sequence

import numpy as np


def top_k_accuracy(classes: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Returns the fraction of images whose label is among the first k classes.

    Args:
        classes: int [n, >=k], best first.
        labels: int [n].
        k: number of classes that count.

    Raises:
        ValueError: the shapes do not match.
    """
    first = _first_k(classes, labels, k)
    return float(np.mean(np.any(first == np.reshape(labels, (len(first), 1)), axis=1)))


def top_accuracies(classes: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Returns top1 and top5 accuracy; top5 of fewer than five classes counts all of them.

    Args:
        classes: int [n, min(5, number of classes)], best first.
        labels: int [n].

    Raises:
        ValueError: the shapes do not match.
    """
    return {
        f"top{k}": top_k_accuracy(classes, labels, min(k, np.shape(classes)[-1])) for k in (1, 5)
    }


def real_accuracy(
    classes: np.ndarray, label_sets: Sequence[Sequence[int]], k: int
) -> tuple[float, int]:
    """Returns the fraction of images with one of their labels among the first k classes.

    This is ReaL accuracy (Beyer et al. 2020).

    Args:
        classes: int [n, >=k], best first.
        label_sets: the labels of each image; images without labels do not count.
        k: number of classes that count.

    Returns:
        The accuracy, and the number of images that count.

    Raises:
        ValueError: the shapes do not match, or no image counts.
    """
    images = zip(_first_k(classes, label_sets, k).tolist(), label_sets, strict=True)
    correct = [not set(labels).isdisjoint(first) for first, labels in images if len(labels)]
    if not correct:
        raise ValueError("no image has a label")
    return float(np.mean(correct)), len(correct)


def average_precision(scores: np.ndarray, is_positive: np.ndarray) -> float:
    """Area under the precision-recall curve (AUPR) as a step function; ties share one step.

    On ImageNet-O (Hendrycks et al. 2021) the score is minus the largest softmax probability over
    its 200 classes. Its images are positive, the validation images of these classes negative.

    Args:
        scores: float [n], higher for images that should be positive.
        is_positive: bool [n].

    Raises:
        ValueError: the shapes do not match, a score is NaN, or no image is positive.
    """
    scores, is_positive = _sorted_pair(scores, is_positive)
    if not is_positive.any():
        raise ValueError("nothing is positive")
    scores, is_positive = scores[::-1], is_positive[::-1]
    step = np.append(scores[1:] != scores[:-1], True)  # last of each group of equal scores
    true_positives = np.cumsum(is_positive)[step]
    precision = true_positives / (np.flatnonzero(step) + 1)
    gains = np.diff(true_positives, prepend=0)
    return float(np.sum(gains * precision) / true_positives[-1])


def rms_calibration_error(
    confidence: np.ndarray, is_correct: np.ndarray, bin_size: int = 100
) -> float:
    """RMS gap between confidence and accuracy in bins of images (Hendrycks et al. 2021).

    The error is sqrt(sum_b n_b / n (mean confidence_b - accuracy_b)^2). Bins hold bin_size images
    in order of confidence. The last bin also takes the remainder. All bins count, whereas the
    script published with ImageNet-A leaves out the last, the most confident one.

    Args:
        confidence: float [n], probability of the predicted class.
        is_correct: bool [n], whether the prediction is correct.
        bin_size: images per bin.

    Raises:
        ValueError: the shapes do not match, a confidence is NaN, or bin_size is not positive.
    """
    confidence, is_correct = _sorted_pair(confidence, is_correct)
    if bin_size < 1:
        raise ValueError(f"bin_size is {bin_size}")
    starts = np.arange(1, len(confidence) // bin_size) * bin_size
    bins = np.split(confidence - is_correct, starts)
    return float(np.sqrt(sum(gaps.size * gaps.mean() ** 2 for gaps in bins) / len(confidence)))


def reliability(
    confidence: np.ndarray, is_correct: np.ndarray, num_bins: int = 15
) -> dict[str, list]:
    """Points of the reliability diagram (Guo et al. 2017, section 2), in bins of equal width.

    Args:
        confidence: float [n], probability of the predicted class.
        is_correct: bool [n], whether the prediction is correct.
        num_bins: number of bins between 0 and 1; those without images are left out.

    Returns:
        "n", "confidence" and "accuracy": number of images, their mean confidence, and their
        accuracy, of each bin.

    Raises:
        ValueError: the shapes do not match, or a confidence is NaN.
    """
    confidence, is_correct = _sorted_pair(confidence, is_correct)
    bins = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    n = np.bincount(bins, minlength=num_bins)
    used = n > 0
    sums = [np.bincount(bins, w, num_bins)[used] for w in (confidence, is_correct)]
    means = [(total / n[used]).tolist() for total in sums]
    return {"n": n[used].tolist(), "confidence": means[0], "accuracy": means[1]}


def aurra(confidence: np.ndarray, is_correct: np.ndarray) -> float:
    """Area under the response rate accuracy curve (Hendrycks et al. 2021).

    This is the mean over k = 1..n of the accuracy on the k most confident images. Equally confident
    images keep their order.

    Args:
        confidence: float [n], probability of the predicted class.
        is_correct: bool [n], whether the prediction is correct.

    Raises:
        ValueError: the shapes do not match, or a confidence is NaN.
    """
    _, is_correct = _sorted_pair(np.negative(confidence), is_correct)
    return float(np.mean(np.cumsum(is_correct) / np.arange(1, len(is_correct) + 1)))


def mean_corruption_error(
    errors: Mapping[str, Sequence[float]], baseline: Mapping[str, Sequence[float]]
) -> float:
    """ImageNet-C's mCE (Hendrycks & Dietterich 2019): errors relative to AlexNet's.

    For each corruption, the sum of the errors over the severities is divided by AlexNet's sum. The
    result is the mean over the corruptions.

    Args:
        errors: corruption -> top-1 errors at its 5 severities; corruptions that `baseline` lacks
            do not count.
        baseline: AlexNet's errors, `alexnet_c.ALEXNET_ERRORS`.

    Raises:
        ValueError: `errors` lacks a corruption or a severity of `baseline`.
    """
    return relative_mean_corruption_error(errors, 0.0, baseline, 0.0)


def relative_mean_corruption_error(
    errors: Mapping[str, Sequence[float]],
    clean_error: float,
    baseline: Mapping[str, Sequence[float]],
    baseline_clean_error: float,
) -> float:
    """ImageNet-C's relative mCE (Hendrycks & Dietterich 2019): mCE of the errors minus clean_error.

    Args:
        errors, baseline: as in `mean_corruption_error`.
        clean_error: top-1 error on the ImageNet validation set.
        baseline_clean_error: AlexNet's clean error, `alexnet_c.ALEXNET_CLEAN_ERROR`.

    Raises:
        ValueError: `errors` lacks a corruption or a severity of `baseline`.
    """
    _check_keys(errors, baseline)
    for corruption, row in baseline.items():
        if len(errors[corruption]) != len(row):
            raise ValueError(f"{corruption} has {len(errors[corruption])} errors, not {len(row)}")
    return mean_ratio(
        {c: sum(error - clean_error for error in errors[c]) for c in baseline},
        {c: sum(error - baseline_clean_error for error in baseline[c]) for c in baseline},
    )


def flip_probability(top1: np.ndarray, is_noise: bool) -> float:
    """ImageNet-P's flip probability (Hendrycks & Dietterich 2019).

    This is the probability that a frame's prediction differs from that of its reference frame. The
    reference is the previous frame, or the first frame for noise, whose frames are independent.

    Args:
        top1: int [videos, frames], the predicted class of each frame.
        is_noise: whether the perturbation is a noise.

    Raises:
        ValueError: the shape is invalid, or there are fewer than two frames.
    """
    reference, frame = _frame_pairs(top1, is_noise, ())
    return float(np.mean(reference != frame))


def top5_distance(top5: np.ndarray, is_noise: bool) -> float:
    """ImageNet-P's top-5 distance, 0 to 15, not normalized (Hendrycks & Dietterich 2019).

    A frame's distance to its reference (see `flip_probability`) is sum_{i=1..5} |c(i) - c(s(i))|.
    Here s(i) is the rank in the frame of the reference's i-th class, and c(r) = min(r - 1, 5).

    Args:
        top5: int [videos, frames, 5], the predicted classes of each frame, best first.
        is_noise: whether the perturbation is a noise.

    Raises:
        ValueError: the shape is invalid, or there are fewer than two frames.
    """
    reference, frame = _frame_pairs(top5, is_noise, (5,))
    is_same = reference[..., :, None] == frame[..., None, :]
    moved_to = np.where(is_same.any(-1), is_same.argmax(-1), 5)
    return float(np.mean(np.sum(np.abs(np.arange(5) - moved_to), axis=-1)))


def mean_ratio(values: Mapping[str, float], baseline: Mapping[str, float]) -> float:
    """Returns the mean over the keys of value / baseline.

    For ImageNet-P (Hendrycks & Dietterich 2019), this is the mFR of flip probabilities and the mT5D
    of top-5 distances.

    Args:
        values: perturbation -> value; those that `baseline` lacks do not count.
        baseline: perturbation -> AlexNet's value.

    Raises:
        ValueError: `values` lacks a key of `baseline`, or `baseline` is empty.
    """
    _check_keys(values, baseline)
    return float(np.mean([values[key] / baseline[key] for key in baseline]))


def _check_keys(values: Mapping, baseline: Mapping) -> None:
    missing = [key for key in baseline if key not in values]
    if missing or not baseline:
        raise ValueError(f"missing: {', '.join(missing)}" if missing else "the baseline is empty")


def _first_k(classes: np.ndarray, labels: Sequence | np.ndarray, k: int) -> np.ndarray:
    classes = np.asarray(classes)
    if classes.ndim != 2 or not 0 < len(classes) == len(labels) or not 1 <= k <= classes.shape[1]:
        raise ValueError(f"classes {classes.shape} and {len(labels)} labels for k = {k}")
    return classes[:, :k]


def _sorted_pair(scores: np.ndarray, flags: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorts float64 scores [n] and bool flags [n] by ascending score; stable."""
    scores, flags = np.asarray(scores, np.float64), np.asarray(flags, np.bool_)
    if scores.shape != flags.shape or scores.ndim != 1 or not scores.size:
        raise ValueError(f"shapes {scores.shape} and {flags.shape}")
    if np.isnan(scores).any():
        raise ValueError("a score is NaN")
    order = np.argsort(scores, kind="stable")
    return scores[order], flags[order]


def _frame_pairs(
    predictions: np.ndarray, is_noise: bool, per_frame: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns reference frames [videos, 1 or frames - 1, *per_frame] and frames to compare."""
    predictions = np.asarray(predictions)
    videos, frames, *rest = predictions.shape
    if videos < 1 or frames < 2 or tuple(rest) != per_frame:
        raise ValueError(f"shape {predictions.shape}")
    return predictions[:, :1] if is_noise else predictions[:, :-1], predictions[:, 1:]
