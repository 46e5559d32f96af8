"""Pictures of an analysis: the mixture weights of all layers, and each layer's statistics."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from an_jax.attention.layers import Json, attentive_layers, format_title, select_layers


def draw_mixture(analysis: Json) -> Figure:
    """Draws the mean and the standard deviation of each component's weight, a row for a layer."""
    layers = attentive_layers(analysis)
    width = max(len(layer["components"]) for layer in layers)
    figure = Figure((10, 1.6 + 0.28 * len(layers)), layout="constrained")
    for axes, field, title in zip(
        figure.subplots(1, 2, sharey=True),
        ("mean", "std"),
        ("mean over images", "standard deviation over images"),
        strict=True,
    ):
        cells = np.full((len(layers), width), np.nan)
        for row, layer in zip(cells, layers, strict=True):
            values = [component[field] for component in layer["components"]]
            row[: len(values)] = values
        top = 1.0 if field == "mean" else None
        image = axes.imshow(cells, cmap="viridis", vmin=0, vmax=top, aspect="auto")
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("component")
        axes.set_xticks(range(0, width, 1 if width <= 10 else 2))
        axes.set_yticks(range(len(layers)), [layer["name"] for layer in layers], fontsize=8)
        figure.colorbar(image, label="mixture weight λ", pad=0.02)
    figure.suptitle(format_title(analysis), fontsize=11, parse_math=False)
    return figure


def draw_layers(analysis: Json, counterparts: Sequence[Json]) -> Figure:
    """Draws the statistics of each AN layer.

    Args:
        analysis: of a model with AN.
        counterparts: of models with BN at the places of AN, drawn beside it.
    """
    layers = attentive_layers(analysis)
    figure = Figure((max(8, 3 + 0.25 * len(layers)), 8), layout="constrained")
    (in_use, by_class), (scale, shift) = figure.subplots(2, 2, sharex=True)
    _plot(in_use, layers, "in_use", label="of the mean weights")
    _plot(in_use, layers, "in_use_per_image", label="of each image's weights, mean")
    counts = [len(layer["components"]) for layer in layers]
    in_use.plot(counts, color="#888888", ls=":", label="K")
    in_use.set_ylabel("components in use")
    in_use.set_ylim(0)
    _plot(by_class, layers, "epsilon_squared", label="epsilon squared")
    _plot(by_class, layers, "eta_squared", label="eta squared (biased)", ls="--")
    by_class.set_ylabel("share of λ's variance explained by class")
    by_class.axhline(0, color="#888888", lw=0.8)
    for axes, field in ((scale, "scale"), (shift, "shift")):
        for model in (analysis, *counterparts):
            rows = layers if model is analysis else select_layers(model, layers)
            spreads = [row[field] for row in rows]
            axes.errorbar(
                range(len(rows)),
                [spread["mean"] for spread in spreads],
                [spread["std_over_images"] for spread in spreads],
                marker="^" if model is analysis else "o",
                ms=5,
                capsize=3,
                label=model["model"],
            )
        axes.set_ylabel(f"effective {field}, mean over channels\n(bars: ± std over images)")
        axes.axhline(0, color="#888888", lw=0.8)
        names = [layer["name"] for layer in layers]
        axes.set_xticks(range(len(layers)), names, rotation=90, fontsize=7)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        for text in axes.legend(frameon=False, fontsize=8).get_texts():
            text.set_parse_math(False)  # names may contain $
    figure.suptitle(format_title(analysis), fontsize=11, parse_math=False)
    return figure


def _plot(axes: Axes, layers: Sequence[Json], field: str, *, label: str, ls: str = "-") -> None:
    values = [np.nan if layer[field] is None else layer[field] for layer in layers]
    axes.plot(values, ls=ls, marker="o", ms=4, label=label)
