"""AOGNet (Li, Song, Wu: "AOGNets: Compositional Grammatical Architectures", CVPR 2019), BN or AN.

A building block divides its input's channels into a line of primitives, parses the line with an
And-Or graph, and computes a bottleneck at each node of the graph, bottom-up.
"""

import functools
import itertools
import math
import operator
from typing import NamedTuple, Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from an_jax.models.and_or_graph import AndOrGraph, Kind, Node, and_or_graph
from an_jax.nn import (
    BatchNorm,
    Classifier,
    Conv,
    ConvNorm,
    Dropout,
    FeatureMap,
    Layer,
    Options,
    Sequential,
    avg_pool,
    global_avg_pool,
    identity,
    max_pool,
    norm_layer,
)

BOTTLENECK_RATIO = 0.25
STRIDES = (4, 4, 8, 16, 32)  # of the stem's and the stages' outputs


class Stage(NamedTuple):
    """The settings of a stage that all AOGNets share.

    Attributes:
        dim: number of primitives.
        wide_left: which And-Or graph parses them (see AndOrGraph).
        dropout: probability that training drops a channel.
        num_mixtures: AN's mixture components.
    """

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
    """The operator of a node: a bottleneck of three convolutions with a shortcut.

    Args:
        in_features, out_features: numbers of channels.
        num_mixtures: components of AN as the second norm; None for BN.
        dropout: probability that training drops a channel of the bottleneck's output.
        **options: dtype and rngs.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        num_mixtures: int | None,
        dropout: float,
        **options: Unpack[Options],
    ):
        planes = int(BOTTLENECK_RATIO * out_features + 0.5)
        self.conv1 = Conv(in_features, planes, 1, **options)
        self.norm1 = BatchNorm(planes, **options)
        self.conv2 = Conv(planes, planes, 3, padding=1, **options)
        self.norm2 = norm_layer(planes, num_mixtures, **options)
        self.conv3 = Conv(planes, out_features, 1, **options)
        self.norm3 = BatchNorm(out_features, **options)
        self.dropout = Dropout(dropout)
        self.downsample: Layer = (
            identity
            if in_features == out_features
            else ConvNorm(in_features, out_features, 1, **options)
        )

    def __call__(self, x: jax.Array, shortcut: jax.Array) -> jax.Array:
        """Maps x and shortcut [N, H, W, in_features] to [N, H, W, out_features]."""
        y = jax.nn.relu(self.norm1(self.conv1(x)))
        y = jax.nn.relu(self.norm2(self.conv2(y)))
        y = self.dropout(self.norm3(self.conv3(y)))
        return jax.nn.relu(y + self.downsample(shortcut))


class AOGBlock(nnx.Module):
    """A building block: an And-Or graph with an operator at each node.

    A Terminal-node takes the channels of its interval of primitives, an And-node concatenates its
    children, an Or-node adds them up. The output of a lateral node is added to that. Only nodes
    over the whole line of primitives have AN.

    Args:
        in_features, out_features: numbers of channels, multiples of the number of primitives.
        stage: the graph, and dropout.
        num_mixtures: components of AN; None for BN.
        **options: dtype and rngs.

    Raises:
        ValueError: the number of primitives does not divide the channels.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        stage: Stage,
        num_mixtures: int | None,
        **options: Unpack[Options],
    ):
        self.stage = stage
        for features in (in_features, out_features):
            if features % stage.dim:
                raise ValueError(f"{features} channels do not divide into {stage.dim} primitives")
        for node in self.graph.bottom_up:
            features = node.width * out_features // stage.dim
            in_width = node.width * in_features // stage.dim
            operator = NodeOperator(
                in_width if node.kind is Kind.TERMINAL else features,
                features,
                num_mixtures=num_mixtures if node.width == stage.dim else None,
                dropout=stage.dropout,
                **options,
            )
            setattr(self, f"node_{node.id}", operator)
        self.extra_norm_ac = Sequential([BatchNorm(out_features, **options), jax.nn.relu])

    @property
    def graph(self) -> AndOrGraph:
        """The And-Or graph; not an attribute, because jit compares the attributes of modules."""
        return and_or_graph(self.stage.dim, self.stage.wide_left)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x [N, H, W, in_features] to [N, H, W, out_features]."""
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
    """Returns the inputs of an And- or Or-node's bottleneck and of its shortcut, [N, H, W, C].

    A child may have more paths from the root than the node. In the shortcut it is scaled by the
    ratio of the node's paths to its own; in the bottleneck it is not scaled. The output of a
    lateral node is added to the shortcut too, unless a common parent adds it there.
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
    """Concatenates an And-node's parts, or adds up an Or-node's alternatives."""
    if kind is Kind.AND:
        return jnp.concatenate(parts, axis=-1)
    return functools.reduce(operator.add, parts)


class Transition(nnx.Module):
    """Halves the resolution ahead of a stage: 1x1 convolution, BN, ReLU, average pooling."""

    def __init__(self, features: int, **options: Unpack[Options]):
        conv = ConvNorm(features, features, 1, activation=jax.nn.relu, **options)
        self.transition = Sequential([conv, avg_pool])

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x [N, H, W, C] to [N, H // 2, W // 2, C]."""
        return self.transition(x)


class AOGNet(nnx.Module):
    """AOGNet for images of at least 31 px.

    Args:
        widths: channels of the stem and after each stage.
        depths: number of blocks of each stage.
        attentive: whether the second norms of nodes over all primitives are AN.
        num_classes: number of logits; 0: no classifier.
        in_features: channels of the images.
        dtype: compute dtype; parameters, statistics and logits are at least float32.
        rngs: source of the initialization.
    """

    def __init__(
        self,
        widths: tuple[int, ...],
        depths: tuple[int, ...],
        *,
        attentive: bool,
        num_classes: int,
        in_features: int = 3,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        options = Options(dtype=dtype, rngs=rngs)
        half = widths[0] // 2
        relu = jax.nn.relu
        self.stem = Sequential(
            [
                ConvNorm(in_features, half, 3, stride=2, padding=1, activation=relu, **options),
                ConvNorm(half, half, 3, padding=1, activation=relu, **options),
                ConvNorm(half, widths[0], 3, padding=1, activation=relu, **options),
            ]
        )
        for number, (stage, depth) in enumerate(zip(STAGES, depths, strict=True), start=1):
            features = block_widths(widths[number - 1], widths[number], depth, stage.dim)
            mixtures = stage.num_mixtures if attentive else None
            blocks: list[Layer] = []
            for i, (before, after) in enumerate(itertools.pairwise(features)):
                is_reduced = number > 1 and i == 0
                blocks.append(Transition(before, **options) if is_reduced else identity)
                blocks.append(AOGBlock(before, after, stage, mixtures, **options))
            setattr(self, f"layer{number}", Sequential(blocks))
        self.feature_info = tuple(map(FeatureMap, STRIDES, widths))
        self.fc = Classifier(widths[-1], num_classes, **options) if num_classes else identity

    def features(self, images: jax.Array) -> list[jax.Array]:
        """Returns the maps of `feature_info`: the stem's after pooling, and each stage's (NHWC)."""
        outputs = [max_pool(self.stem(images), 2, 2)]
        for number in range(1, len(STAGES) + 1):
            outputs.append(getattr(self, f"layer{number}")(outputs[-1]))
        return outputs

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps normalized images [N, H, W, in_features] to logits [N, num_classes].

        Without a classifier, to pooled features [N, C]. Both are at least float32.
        """
        return self.fc(global_avg_pool(self.features(images)[-1]))


def block_widths(first: int, last: int, depth: int, dim: int) -> list[int]:
    """Returns the channels before, between and after the blocks of a stage.

    The steps are equal: the nearest multiple of dim, or the lower of two. The last takes the rest.
    """
    step = dim * math.ceil((last - first) // depth / dim - 0.5)
    return [first + i * step for i in range(depth)] + [last]
