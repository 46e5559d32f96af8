"""AOGNet in PyTorch."""

import functools
import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from an_jax.benchmark.pytorch.layers import (
    Residual,
    classifier,
    conv2d,
    named_layers,
    norm2d,
)
from an_jax.models import aognet
from an_jax.models.and_or_graph import Kind, Node, and_or_graph


def conv_norm(in_features: int, out_features: int, kernel_size: int) -> nn.Sequential:
    """Convolution and BN."""
    conv = conv2d(in_features, out_features, kernel_size)
    return named_layers(conv=conv, bn=nn.BatchNorm2d(out_features))


def conv_norm_relu(
    in_features: int, out_features: int, kernel_size: int, stride: int = 1
) -> nn.Sequential:
    """Convolution, BN and ReLU."""
    conv = conv2d(in_features, out_features, kernel_size, stride)
    return named_layers(conv=conv, bn=nn.BatchNorm2d(out_features), relu=nn.ReLU(inplace=True))


class AOGBlock(nn.Module):
    """The building block of AOGNets; see an_jax/models/aognet.py.

    Args:
        in_features, out_features: numbers of channels, multiples of the number of primitives.
        stage: the graph and dropout.
        num_mixtures: components of AN; None for BN.
        prefix: of the operators' names.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        stage: aognet.Stage,
        num_mixtures: int | None,
        prefix: str,
    ):
        super().__init__()
        graph = and_or_graph(stage.dim, stage.wide_left)
        self.bottom_up, self.prefix = graph.bottom_up, prefix
        self.primitive = in_features // stage.dim
        self.lateral_in_shortcut = {
            n.id for n in graph.nodes if n.lateral and not graph.are_siblings(n, n.lateral)
        }
        for node in graph.bottom_up:
            features = node.width * out_features // stage.dim
            inputs = node.width * self.primitive if node.kind is Kind.TERMINAL else features
            mixtures = num_mixtures if node.width == stage.dim else None
            operator = _node_operator(inputs, features, mixtures, stage.dropout)
            self.add_module(f"{prefix}_node_{node.id}_op", operator)
        self.extra_norm_ac = nn.Sequential(nn.BatchNorm2d(out_features), nn.ReLU(inplace=True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [N, in_features, H, W] -> [N, out_features, H, W]."""
        outputs: dict[int, torch.Tensor] = {}
        for node in self.bottom_up:
            if node.kind is Kind.TERMINAL:
                y = shortcut = x[:, node.first * self.primitive : (node.last + 1) * self.primitive]
            else:
                y, shortcut = self._gather(node, outputs)
            operator = getattr(self, f"{self.prefix}_node_{node.id}_op")
            outputs[node.id] = operator(y, shortcut)
        return self.extra_norm_ac(outputs[0])

    def _gather(
        self, node: Node, outputs: Mapping[int, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the inputs of an And- or Or-node's branch and shortcut; the same if equal."""
        parts = [outputs[child.id] for child in node.children]
        scales = [node.num_paths / child.num_paths for child in node.children]
        y = shortcut = _combine(node.kind, parts)
        if any(scale != 1 for scale in scales):
            scaled = [p if s == 1 else p * s for p, s in zip(parts, scales, strict=True)]
            shortcut = _combine(node.kind, scaled)
        if node.lateral:
            lateral = outputs[node.lateral.id]
            joined = y + lateral
            if node.id in self.lateral_in_shortcut:
                shortcut = joined if shortcut is y else shortcut + lateral
            y = joined
        return y, shortcut


def _node_operator(
    in_features: int, out_features: int, num_mixtures: int | None, dropout: float
) -> Residual:
    """Returns the bottleneck of a node, whose second norm may be AN."""
    planes = int(aognet.BOTTLENECK_RATIO * out_features + 0.5)

    def norm(slot: str, features: int) -> nn.Module:
        return norm2d(features, num_mixtures if slot == "norm2" else None)

    return Residual(
        in_features,
        [(planes, 1, 1), (planes, 3, 1), (out_features, 1, 1)],
        norm,
        nn.Identity() if in_features == out_features else conv_norm(in_features, out_features, 1),
        dropout=dropout,
    )


def _combine(kind: Kind, parts: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat(parts, dim=1) if kind is Kind.AND else functools.reduce(torch.add, parts)


def create_aognet(
    widths: Sequence[int], depths: Sequence[int], *, attentive: bool, num_classes: int
) -> nn.Module:
    """Creates an AOGNet; see an_jax/models/aognet.py for the arguments."""
    half = widths[0] // 2
    stem = nn.Sequential(
        conv_norm_relu(3, half, 3, 2),
        conv_norm_relu(half, half, 3),
        conv_norm_relu(half, widths[0], 3),
    )
    network: dict[str, nn.Module] = {
        "stem": named_layers(conv1=stem),
        "stem_pool": nn.MaxPool2d(2),
    }
    for number, (stage, depth) in enumerate(zip(aognet.STAGES, depths, strict=True), start=1):
        features = aognet.block_widths(widths[number - 1], widths[number], depth, stage.dim)
        mixtures = stage.num_mixtures if attentive else None
        layers: list[nn.Module] = []
        for i, (n_in, n_out) in enumerate(itertools.pairwise(features), start=1):
            is_transition = number > 1 and i == 1
            layers.append(_transition(n_in) if is_transition else nn.Identity())
            layers.append(AOGBlock(n_in, n_out, stage, mixtures, f"stage_{number}_block_{i}"))
        network[f"layer{number}"] = nn.Sequential(*layers)
    return classifier(network, fc=nn.Linear(widths[-1], num_classes))


def _transition(features: int) -> nn.Module:
    conv = conv_norm_relu(features, features, 1)
    return named_layers(transition=nn.Sequential(conv, nn.AvgPool2d(2)))
