"""Draws the training curves of one or several runs."""

import argparse
import io
import itertools
import math
import sys
from collections.abc import Sequence

from etils import epath

from an_jax.buckets import check_bucket
from an_jax.errors import InputError, exit_status
from an_jax.files import absolute, check_destination, why_not_png, write_atomically
from an_jax.report.page import build_page, why_not_page, write_page
from an_jax.training.curve_data import collect, read_metrics

MARKERS = "osD^v<>P*X"  # of further test sets


def plot_curves(workdirs: list[epath.Path], path: epath.Path) -> None:
    """Draws loss, accuracies, learning rate and norms by epoch into a PNG file.

    Each run has its own color.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import MaxNLocator

    figure, ((left, right), (rates, norms)) = pyplot.subplots(
        2, 2, figsize=(10, 7), height_ratios=(4, 3), sharex=True, layout="constrained"
    )
    for axes in (left, norms):  # before drawing: later, it fails if there is nothing to show
        axes.set_yscale("log")
    for workdir in workdirs:
        epochs = read_metrics(workdir)
        x = [epoch["epoch"] for epoch in epochs]
        (line,) = left.plot(x, _values(epochs, "loss"))
        color = line.get_color()
        best = max(epoch["val_top1"] for epoch in epochs)
        label = f"{workdir.name} (best {100 * best:.1f} %)"
        right.plot(x, _values(epochs, "val_top1", 100), color=color, label=label)
        train = _values(epochs, "train_top1", 100)
        right.plot(x, train, color=color, linestyle=":", linewidth=1)
        rates.plot(x, _values(epochs, "learning_rate"), color=color)
        norms.plot(x, _values(epochs, "gradient_norm"), color=color)
        norms.plot(x, _values(epochs, "update_norm"), color=color, linestyle=":")
        names = sorted({key for epoch in epochs for key in epoch if key.endswith("/top1")})
        for name, marker in zip(names, itertools.cycle(MARKERS), strict=False):
            scored = [epoch for epoch in epochs if name in epoch]
            right.plot(
                [epoch["epoch"] for epoch in scored],
                [100 * epoch[name] for epoch in scored],
                color=color,
                linewidth=0.5,
                marker=marker,
                markersize=3,
                label=f"{workdir.name}: {name.removesuffix('/top1')}",
            )
    left.set_ylabel("training loss (cross entropy)")
    right.set_ylabel("top-1 accuracy (%): val solid, training dotted")
    right.legend(loc="lower right", frameon=False)
    rates.set_ylabel("learning rate")
    norms.set_ylabel("norm: gradient solid, update dotted")
    for axes in (rates, norms):
        axes.set_xlabel("epoch")
    for axes in figure.axes:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    write_atomically(path, picture.getvalue())
    pyplot.close(figure)


def _values(epochs: list[dict], name: str, factor: float = 1) -> list[float]:
    return [factor * epoch.get(name, math.nan) for epoch in epochs]


def write_curves(workdirs: list[epath.Path], path: epath.Path) -> None:
    """Writes an HTML page with everything that the runs have logged.

    Raises:
        InputError: a directory is not a training run with a finished epoch, or the page cannot be
            written.
    """
    data = collect(workdirs)
    names = [run["name"] for run in data["runs"]]
    title = names[0] if len(names) == 1 else f"{len(names)} runs"
    write_page(build_page(f"Training curves of {title}", data, ["curves.js"]), path)


# Suffix of the output -> the function that writes it, and the check of an existing one.
_FORMATS = {".html": (write_curves, why_not_page), ".png": (plot_curves, why_not_png)}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m an_jax.training.curves", description=__doc__)
    parser.add_argument("runs", nargs="+", help="working directories of train.py")
    parser.add_argument("--output", required=True, help="page (.html) or picture (.png) to write")
    args = parser.parse_args(argv)

    def draw() -> None:
        output = absolute(args.output)
        if output.suffix not in _FORMATS:
            raise InputError(f"--output {args.output}: the name must end with .html or .png")
        write, why_foreign = _FORMATS[output.suffix]
        runs = [*map(absolute, args.runs)]
        for path in (*runs, output):
            check_bucket(path)
        check_destination(output, overwrite=True, why_foreign=why_foreign)
        write(runs, output)

    return exit_status(draw)


if __name__ == "__main__":
    sys.exit(main())
