"""Files about the classes of a test set: accuracies, confusions, and the confusion matrix."""

import csv
from collections.abc import Iterable, Sequence

import numpy as np
from etils import epath
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from an_jax.evaluation.metrics import top_accuracies
from an_jax.evaluation.plots import shorten
from an_jax.evaluation.predictions import Predictions
from an_jax.files import replacing

MAX_CLASSES = 50  # of the confusion matrix
_MAX_NUMBERED = 15  # classes up to which the picture shows numbers


def write_class_files(
    directory: epath.Path, predictions: Predictions, space: str, names: Sequence[str]
) -> None:
    """Writes the files about the classes that have images (see docs/test_sets.md).

    Args:
        directory: directory of the files.
        predictions: for images whose labels are in the label space.
        space: label space of the predictions.
        names: name of each label.

    Raises:
        InputError: a file cannot be written.
    """
    labels, best = predictions.labels, predictions.classes[space][:, 0]
    present, counts = np.unique(labels, return_counts=True)
    num_images = dict(zip(present.tolist(), counts.tolist(), strict=True))
    confusions = _count_confusions(labels, best)
    shown = [*num_images]
    if len(shown) > MAX_CLASSES:  # those that are confused most often
        confused = [label for *pair, _, _ in confusions for label in pair if label in num_images]
        shown = [*dict.fromkeys(confused + shown)][:MAX_CLASSES]
    matrix = _count_matrix(labels, best, shown, len(names))
    rows = [names[label] for label in shown]
    columns = [*rows, "other"][: matrix.shape[1]]
    _write_csv(
        directory / "accuracy.csv",
        ["class", "label", "images", "top1", "top5"],
        (
            [names[label], label, n, *_percentages(predictions, space, labels == label)]
            for label, n in num_images.items()
        ),
    )
    _write_csv(
        directory / "confusions.csv",
        ["class", "predicted", "images", "percent", "example"],
        (
            [
                names[label],
                names[predicted],
                n,
                f"{100 * n / num_images[label]:.3f}",
                predictions.filenames[first].decode(),
            ]
            for label, predicted, n, first in confusions
        ),
    )
    _write_csv(
        directory / "confusion_matrix.csv",
        ["class", *columns],
        ([name, *row] for name, row in zip(rows, matrix.tolist(), strict=True)),
    )
    with replacing(directory / "confusion_matrix.png") as path:
        _draw(matrix, rows, columns).savefig(path, format="png", dpi=120)


def _percentages(predictions: Predictions, space: str, is_member: np.ndarray) -> list[str]:
    """Returns top-1 and top-5 accuracy of the images where `is_member`, bool [n], is True."""
    members = predictions.select(is_member)
    accuracies = top_accuracies(members.classes[space], members.labels)
    return [f"{100 * accuracy:.3f}" for accuracy in accuracies.values()]


def _count_confusions(labels: np.ndarray, best: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Returns label, predicted class, number of images, first image; the most frequent first.

    Args:
        labels: int [n].
        best: int [n], the predicted classes.
    """
    wrong = np.flatnonzero(best != labels)
    pairs = np.stack([labels, best], axis=1)[wrong]
    pairs, first, counts = np.unique(pairs, axis=0, return_index=True, return_counts=True)
    rows = np.column_stack([pairs, counts, wrong[first]])
    return [*map(tuple, rows[np.argsort(-counts, kind="stable")].tolist())]


def _count_matrix(
    labels: np.ndarray, best: np.ndarray, shown: Sequence[int], num_classes: int
) -> np.ndarray:
    """Counts images by class and predicted class.

    Args:
        labels: int [n].
        best: int [n], the predicted classes.
        shown: the k classes of the rows and columns.
        num_classes: number of all classes.

    Returns:
        int [k, k], or [k, k + 1] if images of these classes are taken for others.
    """
    k = len(shown)
    position = np.full(num_classes, k)
    position[shown] = np.arange(k)
    matrix = np.zeros((k + 1, k + 1), np.int64)
    np.add.at(matrix, (position[labels], position[best]), 1)
    return matrix[:k] if matrix[:k, k].any() else matrix[:k, :k]


def _draw(matrix: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> Figure:
    """Draws each row in percent of its images."""
    percent = 100 * matrix / matrix.sum(axis=1, keepdims=True)
    is_numbered = len(rows) <= _MAX_NUMBERED
    side = 3 + len(rows) * (0.45 if is_numbered else 0.2)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    scale = PowerNorm(0.5, vmin=0, vmax=100)  # shows small percentages
    image = axes.imshow(percent, cmap="Blues", norm=scale)
    rotation = 90 if max(map(len, columns)) > 3 else 0
    axes.set_xticks(range(len(columns)), [*map(shorten, columns)], rotation=rotation, fontsize=8)
    axes.set_yticks(range(len(rows)), [*map(shorten, rows)], fontsize=8)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_parse_math(False)  # names may contain $
    if is_numbered:
        for i, j in np.argwhere(matrix):
            color = "white" if percent[i, j] > 35 else "black"
            axes.text(j, i, str(matrix[i, j]), ha="center", va="center", fontsize=8, color=color)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("class")
    ticks = [0, 1, 5, 10, 25, 50, 100]
    figure.colorbar(image, label="% of the images of the class", shrink=0.6, ticks=ticks)
    return figure


def _write_csv(path: epath.Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
