"""Draw the And-Or graph of an AOGNet block: `python -m an_jax.zoo.draw_graph 4 graph.png`."""

import argparse
import sys
from collections import defaultdict
from pathlib import Path

from an_jax.errors import exit_status
from an_jax.files import check_destination, replacing, why_not_png
from an_jax.models.and_or_graph import AndOrGraph, Kind, Node

_STYLES = {Kind.OR: ("o", "#8ecae6"), Kind.AND: ("s", "#ffb703"), Kind.TERMINAL: ("^", "#d9d9d9")}


def draw_graph(graph: AndOrGraph, path: Path) -> None:
    """Writes a PNG with wide intervals above narrow ones, each above its primitives.

    Raises:
        InputError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    dim = graph.nodes[0].width
    places = _places(graph)
    figure = Figure(figsize=(2 + 2.4 * dim, 1.6 + 1.5 * dim), layout="constrained")
    axes = figure.subplots()
    for node in graph.nodes:
        for source in node.inputs:
            lateral = source is node.lateral
            # Long edges are bent around the nodes between their ends.
            bend = 0.3 if lateral else 0.12 if node.width - source.width > 1 else 0
            axes.annotate(
                "",
                places[node],
                places[source],
                arrowprops={
                    "arrowstyle": "-|>",
                    "shrinkA": 13,
                    "shrinkB": 13,
                    "color": "#c1121f" if lateral else "#555555",
                    "linestyle": "--" if lateral else "-",
                    "connectionstyle": f"arc3,rad={bend}",
                },
            )
    for kind, (marker, color) in _STYLES.items():
        points = [places[node] for node in graph.nodes if node.kind is kind]
        axes.scatter(
            [x for x, _ in points],
            [y for _, y in points],
            s=560,
            marker=marker,
            color=color,
            edgecolors="black",
            label=f"{kind.value}-node",
            zorder=2,
        )
    for node, (x, y) in places.items():
        drop = 0.05 if node.kind is Kind.TERMINAL else 0
        axes.text(x, y - drop, str(node.id), ha="center", va="center", fontsize=9, zorder=3)
    axes.plot([], [], "--", color="#c1121f", label="lateral connection")
    axes.set_xticks(range(dim), [f"primitive {i}" for i in range(dim)])
    axes.set_yticks([2 * w + 0.5 for w in range(dim)], [f"width {w + 1}" for w in range(dim)])
    axes.margins(0.12)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, markerscale=0.5)
    check_destination(path, overwrite=True, why_foreign=why_not_png)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


def _places(graph: AndOrGraph) -> dict[Node, tuple[float, float]]:
    """Returns (x, y) of each node: an interval's Or-node is above its Terminal- and And-nodes."""
    groups = defaultdict(list)
    for node in graph.nodes:
        groups[node.first, node.last, node.kind is Kind.OR].append(node)
    places: dict[Node, tuple[float, float]] = {}
    for (first, last, is_or), nodes in groups.items():
        for i, node in enumerate(nodes):
            x = (first + last) / 2 + 0.42 * (i - (len(nodes) - 1) / 2)
            places[node] = (x, 2 * (last - first) + (1 if is_or else 0))
    return places


def main(argv: list[str] | None = None) -> int:
    """Draws the graph and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m an_jax.zoo.draw_graph", description=__doc__)
    parser.add_argument(
        "dim",
        type=int,
        choices=range(1, 9),  # larger graphs are not legible
        help="number of primitives: 2 in AOGNet's stages 1 and 2, 4 in stages 3 and 4",
    )
    parser.add_argument("output", type=Path, help="PNG file to write")
    parser.add_argument("--wide_left", action="store_true", help="draw the graph of stages 2 and 4")
    args = parser.parse_args(argv)
    graph = AndOrGraph(args.dim, wide_left=args.wide_left)
    return exit_status(lambda: draw_graph(graph, args.output))


if __name__ == "__main__":
    sys.exit(main())
