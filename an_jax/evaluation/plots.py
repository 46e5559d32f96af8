"""Plots results: by test set, by model size, AN against BN, clean against shifted."""

import textwrap

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from an_jax.data.sets.test_sets import get_test_set
from an_jax.evaluation.result import Result, bn_counterpart

FILES = (
    "accuracy_by_test_set.png",
    "accuracy_by_parameters.png",
    "bn_against_an.png",
    "shifted_accuracy.png",
)
_NORMS = {"bn": ("o", "#33658a"), "an": ("^", "#c1121f"), "se": ("s", "#b8730f")}

Cells = dict[tuple[str, str], float]  # (model, test set) -> percent


def shorten(text: str, length: int = 28) -> str:
    """Returns at most `length` characters of a label."""
    return text if len(text) <= length else text[: length - 1] + "…"


def figures(results: list[Result]) -> dict[str, Figure]:
    """Draws every figure that the results have data for.

    Args:
        results: of any models on any of the test sets.

    Returns:
        Name in FILES -> figure.
    """
    top1 = {(r.model, r.dataset): 100 * r.scores["top1"] for r in results if "top1" in r.scores}
    scored = [r for r in results if (r.model, r.dataset) in top1]
    gains = {
        (model, dataset): accuracy - top1[bn, dataset]
        for (model, dataset), accuracy in top1.items()
        if (bn := bn_counterpart(model)) and (bn, dataset) in top1
    }
    shifted = {
        (model, dataset): (top1[model, clean], accuracy)
        for (model, dataset), accuracy in top1.items()
        if (clean := get_test_set(dataset).clean) and (model, clean) in top1
    }
    drawings = {}
    if top1:
        drawings["accuracy_by_test_set.png"] = _accuracy_by_test_set(top1)
        drawings["accuracy_by_parameters.png"] = _accuracy_by_parameters(scored)
    if gains:
        drawings["bn_against_an.png"] = _bn_against_an(gains)
    if shifted:
        drawings["shifted_accuracy.png"] = _shifted_accuracy(shifted)
    return drawings


def _accuracy_by_test_set(top1: Cells) -> Figure:
    models, datasets = _models_and_datasets(top1)
    width = 0.8 / len(models)
    size = max(4.0, 1.4 * len(datasets) + 1)
    longest = max(map(len, models))
    columns = min(len(models), max(1, int(size / (0.6 + 0.085 * longest))))  # inches a letter
    rows = -(-len(models) // columns)
    figure, axes = _empty((size, 3.8 + 0.2 * rows))
    for i, (model, color) in enumerate(_colors(models).items()):
        offset = (i - (len(models) - 1) / 2) * width
        heights = {x: top1[model, d] for x, d in enumerate(datasets) if (model, d) in top1}
        positions = [x + offset for x in heights]
        bars = axes.bar(positions, [*heights.values()], width * 0.92, color=color, label=model)
        if len(models) <= 4:
            axes.bar_label(bars, fmt="%.1f", fontsize=8, padding=1)
    axes.set_xticks(range(len(datasets)), [textwrap.fill(d, 17) for d in datasets])
    axes.set_xlim(-0.6, len(datasets) - 0.4)
    axes.set_ylim(0, 108)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel("top-1 accuracy (%)")
    figure.legend(loc="outside upper center", ncols=columns, frameon=False)
    return figure


def _accuracy_by_parameters(results: list[Result]) -> Figure:
    names = [r.dataset for r in results]
    dataset = "imagenet-1k" if "imagenet-1k" in names else names[0]
    results = sorted(
        (r for r in results if r.dataset == dataset), key=lambda r: (r.scores["top1"], r.model)
    )
    x = np.array([r.num_params / 1e6 for r in results])
    y = np.array([100 * r.scores["top1"] for r in results])
    height = max(4.0, 1 + 0.2 * len(results))
    figure, axes = _empty((10, height))
    for norm, (marker, color) in _NORMS.items():
        chosen = [i for i, r in enumerate(results) if r.norm == norm]
        if chosen:
            label = norm.upper()
            axes.scatter(x[chosen], y[chosen], 50, color, marker=marker, label=label, zorder=4)
    axes.set_xscale("log")
    axes.set_xlim(x.min() / 1.5, x.max() * 1.5)  # a single model spans no range
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(y=0.05)
    bottom, top = axes.get_ylim()
    line = (top - bottom) * 0.17 / (height - 1)  # 0.17 inches
    for result, x_i, y_i, label_y in zip(results, x, y, _spread(y, line, top), strict=True):
        axes.annotate(
            result.model,
            (x_i, y_i),
            (1.02, label_y),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            fontsize=8,
            color=_NORMS[result.norm][1],
            arrowprops={"arrowstyle": "-", "color": "#cccccc", "lw": 0.6, "relpos": (0, 0.5)},
        )
    axes.set_xlabel("parameters (millions)")
    axes.set_ylabel(f"top-1 accuracy on {dataset} (%)")
    figure.legend(loc="outside upper center", ncols=len(_NORMS), frameon=False)
    return figure


def _spread(y: np.ndarray, gap: float, top: float) -> np.ndarray:
    """Moves ascending heights apart to at least `gap`: upwards, then down from `top`."""
    spread = y.copy()
    for i in range(1, len(y)):
        spread[i] = max(y[i], spread[i - 1] + gap)
    return np.minimum(spread, top - gap * np.arange(len(y))[::-1])


def _bn_against_an(gains: Cells) -> Figure:
    models, datasets = _models_and_datasets(gains)
    figure, axes = _empty((9, 1.6 + 0.45 * len(models)))
    offsets = 0.7 * ((np.arange(len(datasets)) + 0.5) / len(datasets) - 0.5)
    for (dataset, color), offset in zip(_colors(datasets).items(), offsets, strict=True):
        rows = {
            i + offset: gains[m, dataset] for i, m in enumerate(models) if (m, dataset) in gains
        }
        axes.scatter([*rows.values()], [*rows], 24, color=color, label=dataset, zorder=3)
    for i in range(0, len(models), 2):
        axes.axhspan(i - 0.5, i + 0.5, color="#f2f2f2", zorder=0)
    axes.axvline(0, color="#555555", lw=1)
    axes.set_yticks(range(len(models)), models)
    axes.set_ylim(len(models) - 0.5, -0.5)
    axes.set_xlabel("top-1 accuracy with AN minus with BN (points)")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def _shifted_accuracy(shifted: dict[tuple[str, str], tuple[float, float]]) -> Figure:
    figure, axes = _empty((8, 5.5))
    for dataset, color in _colors(_models_and_datasets(shifted)[1]).items():
        points = [point for (_, d), point in shifted.items() if d == dataset]
        axes.scatter(*zip(*points, strict=True), color=color, label=dataset, alpha=0.85)
    clean = next(iter(shifted.values()))[0]
    axes.axline((clean, clean), slope=1, color="#555555", ls="--", lw=1, label="y = x: no loss")
    axes.set_xlabel("top-1 accuracy on the clean set (%)")
    axes.set_ylabel("top-1 accuracy on the shifted set (%)")
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def _empty(size: tuple[float, float]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _models_and_datasets(cells: dict) -> tuple[list[str], list[str]]:
    models, datasets = (list(dict.fromkeys(names)) for names in zip(*cells, strict=True))
    return models, datasets


def _colors(names: list[str]) -> dict:
    """Chooses distinct colors for up to ten names, and steps of one scale for more."""
    if len(names) <= 10:
        colors = colormaps["tab10"](range(len(names)))
    else:
        colors = colormaps["turbo"](np.linspace(0.04, 0.96, len(names)))
    return dict(zip(names, colors, strict=True))
