"""Draws what `benchmarks.tpu_bytes` has counted: `python -m benchmarks.draw_traffic JSON PNG`."""

import argparse
import json
import sys
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from an_jax.errors import exit_status
from an_jax.files import check_destination, replacing, why_not_png

TITLES = {"train": "training", "eval": "evaluation"}


def draw(rows: list[dict], path: Path) -> None:
    """Writes a PNG with a bar for each model, one panel for each program.

    Raises:
        InputError: the file is not a PNG, or cannot be written.
    """
    figure = Figure(figsize=(9, 0.9 + 0.34 * len(rows)), layout="constrained")
    programs = [program for program in TITLES if any(row["program"] == program for row in rows)]
    parts = [[row for row in rows if row["program"] == program] for program in programs]
    panels = figure.subplots(
        len(parts), squeeze=False, gridspec_kw={"height_ratios": [len(part) for part in parts]}
    )[:, 0]
    for axes, part in zip(panels, parts, strict=True):
        _draw_panel(axes, part)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=3, frameon=False, markerscale=0.5
    )
    check_destination(path, overwrite=True, why_foreign=why_not_png)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


def _draw_panel(axes: Axes, rows: list[dict]) -> None:
    places = range(len(rows))
    accessed = [row["gb_accessed_per_image"] for row in rows]
    axes.barh(places, accessed, color="#d9d9d9", height=0.72, label="HBM and VMEM (XLA's count)")
    moved = [row["gb_per_image"] for row in rows]
    axes.barh(places, moved, color="#219ebc", height=0.72, label="HBM")
    for x, place in zip(moved, places, strict=True):
        axes.annotate(f"{x:.4f}", (0, place), (5, -4), textcoords="offset points", color="white")
    least = [(row["floor_gb_per_image"], place) for row, place in zip(rows, places, strict=True)]
    known = [(x, place) for x, place in least if x]
    axes.plot(*zip(*known, strict=True), "|", color="#c1121f", ms=20, mew=2.5, label="floor")
    axes.set_yticks(places, [row["model"] for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel(f"{TITLES[rows[0]['program']]}: GB an image, batch {rows[0]['batch']}")
    axes.spines[["top", "right"]].set_visible(False)


def main() -> int:
    """Draws the figure and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path, help="JSON of benchmarks.tpu_bytes")
    parser.add_argument("picture", type=Path, help="PNG to write")
    args = parser.parse_args()
    return exit_status(lambda: draw(json.loads(args.rows.read_text()), args.picture))


if __name__ == "__main__":
    sys.exit(main())
