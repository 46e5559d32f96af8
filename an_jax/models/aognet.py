"""AOGNet (Li, Song, Wu: "AOGNets: Compositional Grammatical Architectures", CVPR 2019), BN or AN.

A building block divides its input's channels into a line of primitives, parses that line with an
And-Or graph, and computes a bottleneck at every node of the graph, bottom-up.
"""

import itertools

import jax
import jax.numpy as jnp
from flax import nnx

from an_jax.models.and_or_graph import AndOrGraph, Kind, Node
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
        in_features, out_features: numbers of channels, multiples of dim.
        dim: number of primitives.
        wide_left: which of two mirrored splits the graph keeps, see AndOrGraph.
        num_mixtures: of AN; None for BN.
        dropout: probability that an operator's channel is dropped in training.
        dtype, rngs: compute dtype, and source of the initialization.
    """

    def __init__(
        self, in_features, out_features, dim, *, wide_left, num_mixtures, dropout, dtype, rngs
    ):
        kwargs = {"dtype": dtype, "rngs": rngs}
        self.dim, self.wide_left = dim, wide_left
        for node in self.graph.bottom_up:
            features = node.width * out_features // dim
            operator = NodeOperator(
                node.width * in_features // dim if node.kind is Kind.TERMINAL else features,
                features,
                num_mixtures=num_mixtures if node.width == dim else None,
                dropout=dropout,
                **kwargs,
            )
            setattr(self, f"node_{node.id}", operator)
        self.extra_norm_ac = Sequential([BatchNorm(out_features, dtype=dtype), jax.nn.relu])

    @property
    def graph(self) -> AndOrGraph:
        """The And-Or graph, from a few integers: modules hold only what can be compared."""
        return AndOrGraph(self.dim, wide_left=self.wide_left)

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [N, H, W, in_features] -> [N, H, W, out_features]."""
        graph, primitive = self.graph, x.shape[-1] // self.dim
        outputs: dict[Node, jax.Array] = {}
        for node in graph.bottom_up:
            if node.kind is Kind.TERMINAL:
                y = shortcut = x[..., node.first * primitive : (node.last + 1) * primitive]
            else:
                y, shortcut = gather(graph, node, outputs)
            outputs[node] = getattr(self, f"node_{node.id}")(y, shortcut)
        return self.extra_norm_ac(outputs[graph.nodes[0]])


def gather(graph: AndOrGraph, node: Node, outputs: dict[Node, jax.Array]):
    """Inputs of an And- or Or-node's operator: of its bottleneck, and of its shortcut.

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
        attentive: whether AN stands in place of BN in the full-width nodes.
        dims: number of primitives in each stage.
        wide_left: which graph each stage has.
        dropout: of channels, in each stage.
        num_mixtures: AN's mixture components by stage.
        num_classes: size of the head.
        dtype: compute dtype; parameters, statistics and logits are at least float32.
    """

    def __init__(
        self,
        widths: tuple[int, ...],
        depths: tuple[int, ...],
        *,
        attentive: bool,
        dims: tuple[int, ...] = (2, 2, 4, 4),
        wide_left: tuple[bool, ...] = (False, True, False, True),
        dropout: tuple[float, ...] = (0.0, 0.0, 0.1, 0.1),
        num_mixtures: tuple[int, ...] = (10, 10, 20, 20),
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
        self.num_stages = len(depths)
        for stage, depth in enumerate(depths):
            blocks = []
            features = block_widths(widths[stage], widths[stage + 1], depth, dims[stage])
            for i, (in_features, out_features) in enumerate(itertools.pairwise(features)):
                reduced = stage > 0 and i == 0
                blocks.append(Transition(in_features, **kwargs) if reduced else identity)
                blocks.append(
                    AOGBlock(
                        in_features,
                        out_features,
                        dims[stage],
                        wide_left=wide_left[stage],
                        num_mixtures=num_mixtures[stage] if attentive else None,
                        dropout=dropout[stage],
                        **kwargs,
                    )
                )
            setattr(self, f"layer{stage + 1}", Sequential(blocks))
        self.fc = Classifier(widths[-1], num_classes, **kwargs)

    def features(self, images: jax.Array) -> list[jax.Array]:
        """images [N, H, W, 3] -> the stem's output after pooling, then each stage's (NHWC)."""
        outputs = [max_pool(self.stem(images), 2, 2)]
        for stage in range(self.num_stages):
            outputs.append(getattr(self, f"layer{stage + 1}")(outputs[-1]))
        return outputs

    def __call__(self, images: jax.Array) -> jax.Array:
        """images: normalized [N, H, W, 3] -> logits [N, num_classes], at least float32."""
        return self.fc(global_avg_pool(self.features(images)[-1]))


def block_widths(first: int, last: int, depth: int, dim: int) -> list[int]:
    """Channels before, between and after the blocks of a stage: equal steps, multiples of dim.

    A step that is none is rounded to the nearest (down from the middle).
    """
    step = (last - first) // depth
    remainder = step % dim
    step += dim - remainder if 2 * remainder > dim else -remainder
    return [first + i * step for i in range(depth)] + [last]
