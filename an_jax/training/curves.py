"""Draws the training curves of one or several runs."""

import argparse
import contextlib
import json
import sys
from pathlib import Path

from an_jax.errors import InputError, exit_status

METRICS = "metrics.jsonl"


def read_metrics(workdir: Path) -> list[dict]:
    """The finished epochs of a run, a dictionary each. Raises InputError if it is no run."""
    path = workdir / METRICS
    if not path.is_file():
        raise InputError(f"{workdir} is no training run: it has no {METRICS}")
    epochs = []
    for line in path.read_text().splitlines():
        with contextlib.suppress(ValueError):  # a line cut short by a kill
            epochs.append(json.loads(line))
    return epochs


def plot_curves(workdirs: list[Path], path: Path) -> None:
    """Draws loss, accuracy and learning rate by epoch, a colour a run."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import MaxNLocator

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for workdir in workdirs:
        epochs = read_metrics(workdir)
        if not epochs:
            raise InputError(f"{workdir} has no finished epoch yet")
        x = [epoch["epoch"] for epoch in epochs]
        (line,) = left.plot(x, [epoch["loss"] for epoch in epochs], label=workdir.name)
        color = line.get_color()
        best = max(epoch["test_top1"] for epoch in epochs)
        label = f"{workdir.name} (best {100 * best:.1f} %)"
        test = [100 * epoch["test_top1"] for epoch in epochs]
        train = [100 * epoch["train_top1"] for epoch in epochs]
        right.plot(x, test, color=color, label=label)
        right.plot(x, train, color=color, linestyle=":", linewidth=1)
    left.set_yscale("log")
    left.set_ylabel("training loss (cross entropy)")
    right.set_ylabel("top-1 accuracy (%): test solid, training dotted")
    right.legend(loc="lower right", frameon=False)
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def main(argv=None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m an_jax.training.curves", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="working directories of train.py")
    parser.add_argument("--output", required=True, type=Path, help="PNG to write")
    args = parser.parse_args(argv)
    return exit_status(lambda: plot_curves(args.runs, args.output))


if __name__ == "__main__":
    sys.exit(main())
