"""The And-Or graph: the reference's nodes, the rules of the grammar, and the picture."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from PIL import Image

from an_jax.models.and_or_graph import AndOrGraph, Kind
from an_jax.models.aognet import STAGES, AOGBlock, block_widths, gather
from an_jax.zoo.draw_graph import main
from tests import reference

# The four graphs in use: nodes, order, and what each node computes.
REFERENCE = json.loads((reference.FIXTURES / "and_or_graphs.json").read_text())
used_graphs = pytest.mark.parametrize(
    "expected", REFERENCE, ids=lambda e: f"dim{e['dim']}_rule{e['symmetric_rule']}"
)
any_graph = given(st.builds(AndOrGraph, st.integers(1, 9), wide_left=st.booleans()))


def build(expected):
    return AndOrGraph(expected["dim"], wide_left=expected["symmetric_rule"] == 2)


@used_graphs
def test_nodes(expected):
    graph = build(expected)
    for node, other in zip(graph.nodes, expected["nodes"], strict=True):
        assert node.id == other["id"]
        assert f"{node.kind.value}Node" == other["type"]
        assert (node.first, node.last) == (other["x1"], other["x2"])
        assert node.left_width == other["split_step1"]
        assert [source.id for source in node.inputs] == other["child_ids"]
        assert {parent.id for parent in graph.parents(node)} == set(other["parent_ids"])
        assert node.num_paths == other["npaths"]
    assert [node.id for node in graph.bottom_up] == expected["depth_first"]


@used_graphs
def test_inputs_of_nodes(expected):
    graph, rng = build(expected), np.random.default_rng(0)
    outputs = {node: jnp.array(rng.normal(size=(2, 3, 3, 5 * node.width))) for node in graph.nodes}
    by_id = {node.id: np.asarray(output) for node, output in outputs.items()}
    for rule in expected["forward"]:
        y, shortcut = gather(graph, graph.nodes[rule["id"]], outputs)
        if rule["kind"] == "AND":
            expected_y, expected_shortcut = (
                np.concatenate([by_id[i] * s**power for i, s in rule["concat"]], axis=-1)
                for power in (0, 1)
            )
        else:
            expected_y, expected_shortcut = (
                sum(by_id[i] * s**power for i, s in rule["sum"]) for power in (0, 1)
            )
        for i, shares_parent in rule["lateral"]:
            expected_y = expected_y + by_id[i]
            expected_shortcut = expected_shortcut + (0 if shares_parent else by_id[i])
        np.testing.assert_allclose(y, expected_y, rtol=1e-6)
        np.testing.assert_allclose(shortcut, expected_shortcut, rtol=1e-6)
    assert len(expected["forward"]) == sum(n.kind is not Kind.TERMINAL for n in graph.nodes)


@any_graph
def test_grammar(graph):
    """An interval's alternatives are itself and its splits; a split's parts make it up."""
    for node in graph.nodes:
        if node.kind is Kind.OR:
            terminal, *splits = node.children
            assert terminal.kind is Kind.TERMINAL
            assert all(split.kind is Kind.AND for split in splits)
            interval = (node.first, node.last)
            assert all((child.first, child.last) == interval for child in node.children)
            widths = {frozenset((s.left_width, s.width - s.left_width)) for s in splits}
            assert len(widths) == len(splits) == node.width // 2
        elif node.kind is Kind.AND:
            left, right = sorted(node.children, key=lambda child: child.first)
            assert left.kind is right.kind is Kind.OR
            assert (left.first, right.last) == (node.first, node.last)
            assert left.last + 1 == right.first == node.first + node.left_width
        else:
            assert node.inputs == []
    intervals = [(n.first, n.last) for n in graph.nodes if n.kind is Kind.OR]
    assert len(set(intervals)) == len(intervals)


@any_graph
def test_lateral_connections(graph):
    """They chain all nodes of a kind and width, without cycles."""
    seen = set()
    for node in graph.bottom_up:
        assert seen.issuperset(node.inputs)
        seen.add(node)
        if node.lateral:
            assert (node.lateral.kind, node.lateral.width) == (node.kind, node.width)
    assert seen == set(graph.nodes)
    for kind in (Kind.AND, Kind.OR):
        nodes = [node for node in graph.nodes if node.kind is kind]
        widths = {node.width for node in nodes}
        assert sum(node.lateral is not None for node in nodes) == len(nodes) - len(widths)


@any_graph
def test_path_counts(graph):
    def paths(node):
        above = [parent for parent in graph.nodes if node in parent.children]
        return sum(map(paths, above)) if above else 1

    for node in graph.nodes[:12]:
        assert node.num_paths == paths(node)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((56, 224, 2, 2), [56, 140, 224]),
        ((256, 512, 2, 4), [256, 384, 512]),
        ((448, 896, 3, 4), [448, 596, 744, 896]),  # 149 1/3: the nearest multiple of 4 is 148
        ((0, 100, 2, 4), [0, 48, 100]),  # 50 lies in the middle: down
        ((0, 51, 1, 4), [0, 51]),  # the last block gives just what is asked for
    ],
)
def test_block_widths(arguments, expected):
    assert block_widths(*arguments) == expected


@pytest.mark.parametrize("dim", range(1, 9))
def test_picture(dim, tmp_path, monkeypatch):
    """Each node has a place of its own, and every edge is drawn."""
    edges = []
    monkeypatch.setattr(
        Axes, "annotate", lambda _, text, tip, tail, **style: edges.append((tail, tip))
    )
    assert main([str(dim), str(tmp_path / "graph.png"), "--wide_left"]) == 0
    with Image.open(tmp_path / "graph.png") as image:
        assert min(image.size) > 200
    graph = AndOrGraph(dim, wide_left=True)
    assert len(set(edges)) == sum(len(node.inputs) for node in graph.nodes)
    assert len({place for edge in edges for place in edge}) == len(graph.nodes)


def test_picture_refuses(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["2", str(tmp_path / "file" / "graph.png")]) == 1
    assert "cannot write" in capsys.readouterr().err
    (tmp_path / "thesis.tex").write_text("Attention")
    assert main(["2", str(tmp_path / "thesis.tex")]) == 1
    assert "thesis.tex exists and is not a PNG" in capsys.readouterr().err
    for dim in ("0", "9", "four"):
        with pytest.raises(SystemExit):
            main([dim, str(tmp_path / "graph.png")])


def test_invalid_arguments():
    with pytest.raises(ValueError, match="at least one primitive"):
        AndOrGraph(0)
    options = {"dtype": jnp.float32, "rngs": nnx.Rngs(0)}
    with pytest.raises(ValueError, match="822 channels do not divide into 4 primitives"):
        AOGBlock(512, 822, STAGES[3], None, **options)
