"""Draws the training curves of one or several runs."""

import argparse
import io
import itertools
import math
import sys
from collections.abc import Sequence

from etils import epath

from an_jax.errors import InputError, exit_status
from an_jax.files import absolute, check_destination, why_not_png, write_atomically
from an_jax.training.log_files import EPOCHS, read_lines

MARKERS = "osD^v<>P*X"  # of further test sets


def read_metrics(workdir: epath.Path) -> list[dict]:
    """Returns a dictionary for each finished epoch of a run. Raises InputError if there is none."""
    path = workdir / EPOCHS
    if not path.is_file():
        raise InputError(
            f"{workdir} is not a training run with a finished epoch: it has no {EPOCHS}"
        )
    return read_lines(path)


def plot_curves(workdirs: list[epath.Path], path: epath.Path) -> None:
    """Draws loss and accuracy by epoch into a PNG file, each run in its own color."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import MaxNLocator

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for workdir in workdirs:
        epochs = read_metrics(workdir)
        x = [epoch["epoch"] for epoch in epochs]
        (line,) = left.plot(
            x, [epoch.get("loss", math.nan) for epoch in epochs], label=workdir.name
        )
        color = line.get_color()
        best = max(epoch["val_top1"] for epoch in epochs)
        label = f"{workdir.name} (best {100 * best:.1f} %)"
        val = [100 * epoch["val_top1"] for epoch in epochs]
        train = [100 * epoch.get("train_top1", math.nan) for epoch in epochs]
        right.plot(x, val, color=color, label=label)
        right.plot(x, train, color=color, linestyle=":", linewidth=1)
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
    left.set_yscale("log")
    left.set_ylabel("training loss (cross entropy)")
    right.set_ylabel("top-1 accuracy (%): val solid, training dotted")
    right.legend(loc="lower right", frameon=False)
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    write_atomically(path, picture.getvalue())
    pyplot.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m an_jax.training.curves", description=__doc__)
    parser.add_argument("runs", nargs="+", help="working directories of train.py")
    parser.add_argument("--output", required=True, help="PNG to write")
    args = parser.parse_args(argv)

    def draw() -> None:
        check_destination(args.output, overwrite=True, why_foreign=why_not_png)
        plot_curves([*map(absolute, args.runs)], absolute(args.output))

    return exit_status(draw)


if __name__ == "__main__":
    sys.exit(main())
