"""AOGNet (Li, Song, Wu: "AOGNets: Compositional Grammatical Architectures", CVPR 2019), BN or AN.

A building block divides its input's channels into a line of primitives, parses that line with an
And-Or graph, and computes a bottleneck at every node of the graph, bottom-up.
"""

import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from an_jax.models.and_or_graph import AndOrGraph, Kind, Node, and_or_graph
from an_jax.nn import (
    BatchNorm,
    Classifier,
    Conv,
    ConvNorm,
    Sequential,
    avg_pool,
    global_avg_pool,
    identity,
    max_pool,
    norm_layer,
)

BOTTLENECK_RATIO = 0.25


class Stage(NamedTuple):
    """What is the same in all AOGNets: number of primitives, which graph over them, probability
    of dropping a channel, mixture components of AN."""

    dim: int
    wide_left: bool
    dropout: float
    num_mixtures: int


STAGES = (
    Stage(2, False, 0.0, 10),
    Stage(2, True, 0.0, 10),
    Stage(4, False, 0.1, 20),
    Stage(4, True, 0.1, 20),
)


class NodeOperator(nnx.Module):
    """What every node computes: a bottleneck of three convolutions with a shortcut.

    Args:
        in_features, out_features: numbers of channels.
        num_mixtures: of AN in place of the second norm; None for BN.
        dropout: probability that a channel of the bottleneck's output is dropped in training.
        dtype, rngs: compute dtype, and source of the initialization.
    """

    def __init__(self, in_features, out_features, *, num_mixtures, dropout, dtype, rngs):
        kwargs = {"dtype": dtype, "rngs": rngs}
        planes = int(BOTTLENECK_RATIO * out_features + 0.5)
        self.conv1 = Conv(in_features, planes, 1, **kwargs)
        self.norm1 = BatchNorm(planes, dtype=dtype)
        self.conv2 = Conv(planes, planes, 3, padding=1, **kwargs)
        self.norm2 = norm_layer(planes, num_mixtures, **kwargs)
        self.conv3 = Conv(planes, out_features, 1, **kwargs)
        self.norm3 = BatchNorm(out_features, dtype=dtype)
        self.dropout = nnx.Dropout(dropout, broadcast_dims=(1, 2))
        same = in_features == out_features
        self.downsample = identity if same else ConvNorm(in_features, out_features, 1, **kwargs)

    def __call__(self, x: jax.Array, shortcut: jax.Array) -> jax.Array:
        """x and shortcut [N, H, W, in_features] -> [N, H, W, out_features]."""
        y = jax.nn.relu(self.norm1(self.conv1(x)))
        y = jax.nn.relu(self.norm2(self.conv2(y)))
        y = self.dropout(self.norm3(self.conv3(y)))
        return jax.nn.relu(y + self.downsample(shortcut))


class AOGBlock(nnx.Module):
    """A building block: an And-Or graph with an operator at each node.

    Terminal-nodes take the channels of their interval of primitives, And-nodes concatenate their
    children, Or-nodes add theirs up. A lateral node's output is added to that. Only nodes over the
    whole line of primitives have AN.

    Args:
        in_features, out_features: numbers of channels, multiples of the number of primitives.
        stage: the graph, and dropout.
        num_mixtures: of AN; None for BN.
        dtype, rngs: compute dtype, and source of the initialization.

    Raises:
        ValueError: the channels cannot be divided into primitives.
    """

    def __init__(self, in_features, out_features, stage: Stage, num_mixtures, *, dtype, rngs):
        kwargs = {"dtype": dtype, "rngs": rngs}
        self.stage = stage
        for features in (in_features, out_features):
            if features % stage.dim:
                raise ValueError(f"{features} channels do not divide into {stage.dim} primitives")
        for node in self.graph.bottom_up:
            features = node.width * out_features // stage.dim
            taken = node.width * in_features // stage.dim
            operator = NodeOperator(
                taken if node.kind is Kind.TERMINAL else features,
                features,
                num_mixtures=num_mixtures if node.width == stage.dim else None,
                dropout=stage.dropout,
                **kwargs,
            )
            setattr(self, f"node_{node.id}", operator)
        self.extra_norm_ac = Sequential([BatchNorm(out_features, dtype=dtype), jax.nn.relu])

    @property
    def graph(self) -> AndOrGraph:
        """The And-Or graph (no attribute: those of a module are compared when it is jitted)."""
        return and_or_graph(self.stage.dim, self.stage.wide_left)

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [N, H, W, in_features] -> [N, H, W, out_features]."""
        graph, primitive = self.graph, x.shape[-1] // self.stage.dim
        outputs: dict[Node, jax.Array] = {}
        for node in graph.bottom_up:
            if node.kind is Kind.TERMINAL:
                y = shortcut = x[..., node.first * primitive : (node.last + 1) * primitive]
            else:
                y, shortcut = gather(graph, node, outputs)
            outputs[node] = getattr(self, f"node_{node.id}")(y, shortcut)
        return self.extra_norm_ac(outputs[graph.nodes[0]])


def gather(
    graph: AndOrGraph, node: Node, outputs: dict[Node, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Inputs of an And- or Or-node's operator: of its bottleneck, and of its shortcut; both
    [N, H, W, C], like the outputs.

    The root reaches a node along as many shortcuts as there are paths. In the shortcut a child that
    more paths lead to than to the node is scaled down accordingly; the bottleneck sees it whole.
    A lateral node joins the shortcut too, unless their common parent adds it there already.
    """
    parts = [outputs[child] for child in node.children]
    scales = [node.num_paths / child.num_paths for child in node.children]
    scaled = [part if s == 1 else part * s for part, s in zip(parts, scales, strict=True)]
    y, shortcut = combine(node.kind, parts), combine(node.kind, scaled)
    if node.lateral:
        y = y + outputs[node.lateral]
        if not graph.are_siblings(node, node.lateral):
            shortcut = shortcut + outputs[node.lateral]
    return y, shortcut


def combine(kind: Kind, parts: list[jax.Array]) -> jax.Array:
    """Composition of an And-node's parts, or the sum of an Or-node's alternatives."""
    return jnp.concatenate(parts, axis=-1) if kind is Kind.AND else sum(parts)


class Transition(nnx.Module):
    """Halves the resolution ahead of a stage: 1x1 convolution, BN, ReLU, average pooling."""

    def __init__(self, features, *, dtype, rngs):
        kwargs = {"activation": jax.nn.relu, "dtype": dtype, "rngs": rngs}
        self.transition = Sequential([ConvNorm(features, features, 1, **kwargs), avg_pool])

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [N, H, W, C] -> [N, H // 2, W // 2, C]."""
        return self.transition(x)


class AOGNet(nnx.Module):
    """AOGNet for images of at least 31 px.

    Args:
        widths: channels of the stem and after each stage.
        depths: number of blocks of each stage.
        attentive: whether AN stands in place of BN in the nodes over all primitives.
        num_classes: size of the head.
        dtype: compute dtype; parameters, statistics and logits are at least float32.
    """

    def __init__(
        self,
        widths: tuple[int, ...],
        depths: tuple[int, ...],
        *,
        attentive: bool,
        num_classes: int,
        dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        kwargs = {"dtype": dtype, "rngs": rngs}
        half = widths[0] // 2
        stem = {"activation": jax.nn.relu, "padding": 1, **kwargs}
        self.stem = Sequential(
            [
                ConvNorm(3, half, 3, stride=2, **stem),
                ConvNorm(half, half, 3, **stem),
                ConvNorm(half, widths[0], 3, **stem),
            ]
        )
        for number, (stage, depth) in enumerate(zip(STAGES, depths, strict=True), start=1):
            features = block_widths(widths[number - 1], widths[number], depth, stage.dim)
            mixtures = stage.num_mixtures if attentive else None
            blocks = []
            for i, (in_features, out_features) in enumerate(itertools.pairwise(features)):
                reduced = number > 1 and i == 0
                blocks.append(Transition(in_features, **kwargs) if reduced else identity)
                blocks.append(AOGBlock(in_features, out_features, stage, mixtures, **kwargs))
            setattr(self, f"layer{number}", Sequential(blocks))
        self.fc = Classifier(widths[-1], num_classes, **kwargs)

    def features(self, images: jax.Array) -> list[jax.Array]:
        """images [N, H, W, 3] -> the stem's output after pooling, then each stage's (NHWC)."""
        outputs = [max_pool(self.stem(images), 2, 2)]
        for number in range(1, len(STAGES) + 1):
            outputs.append(getattr(self, f"layer{number}")(outputs[-1]))
        return outputs

    def __call__(self, images: jax.Array) -> jax.Array:
        """images: normalized [N, H, W, 3] -> logits [N, num_classes], at least float32."""
        return self.fc(global_avg_pool(self.features(images)[-1]))


def block_widths(first: int, last: int, depth: int, dim: int) -> list[int]:
    """Channels before, between and after the blocks of a stage: equal steps, but each the nearest
    multiple of dim (the lower of two), and the last what is left."""
    step = dim * math.ceil((last - first) // depth / dim - 0.5)
    return [first + i * step for i in range(depth)] + [last]
