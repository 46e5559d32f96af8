"""Layers and blocks in PyTorch (NCHW), with the names of the released state dicts."""

import functools
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from an_jax.models import aognet
from an_jax.models.and_or_graph import Kind, Node, and_or_graph
from an_jax.nn.attentive_norm import ATTENTION_EPSILON


class AttentiveNorm2d(nn.BatchNorm2d):
    """Attentive Normalization on a BatchNorm backbone; see an_jax/nn/attentive_norm.py.

    Unlike there, feature maps of one pixel give NaN, and under autocast the attention is computed
    in the reduced precision too.

    Args:
        num_features: number of channels C.
        num_mixtures: number K of affine transformations.
    """

    def __init__(self, num_features: int, num_mixtures: int):
        super().__init__(num_features, affine=False)
        self.weight_ = nn.Parameter(1 + 0.1 * torch.randn(num_mixtures, num_features))
        self.bias_ = nn.Parameter(0.1 * torch.randn(num_mixtures, num_features))
        attention = nn.Sequential(
            nn.Conv2d(num_features, num_mixtures, 1, bias=False),
            nn.BatchNorm2d(num_mixtures),
            nn.Hardsigmoid(),
        )
        self.attn_weights = nn.ModuleDict({"attention": attention})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [N, C, H, W] -> the same shape."""
        var, mean = torch.var_mean(x, dim=(2, 3), keepdim=True)
        descriptor = mean * torch.rsqrt(var + ATTENTION_EPSILON)
        attention = self.attn_weights["attention"](descriptor).flatten(1)
        scale = (attention @ self.weight_)[:, :, None, None]
        bias = (attention @ self.bias_)[:, :, None, None]
        return torch.addcmul(bias, scale, super().forward(x))


class SqueezeExcite(nn.Module):
    """Scales each channel by sigmoid(W2 relu(W1 mean(x))).

    Args:
        num_features: number of channels C.
        reduction: W1 has C // reduction rows.
    """

    def __init__(self, num_features: int, reduction: int):
        super().__init__()
        hidden = num_features // reduction
        self.fc = nn.Sequential(
            nn.Linear(num_features, hidden, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, num_features, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [N, C, H, W] -> the same shape."""
        return x * self.fc(x.mean(dim=(2, 3)))[:, :, None, None]


def named_layers(**layers: nn.Module) -> nn.Sequential:
    """Returns the layers in order, named as the arguments."""
    return nn.Sequential(OrderedDict(layers))


def conv2d(
    in_features: int, out_features: int, kernel_size: int, stride: int = 1, groups: int = 1
) -> nn.Conv2d:
    """A convolution whose padding keeps the size at stride 1."""
    padding = kernel_size // 2
    return nn.Conv2d(
        in_features, out_features, kernel_size, stride, padding, groups=groups, bias=False
    )


def norm2d(features: int, num_mixtures: int | None = None) -> nn.Module:
    """AN with `num_mixtures` components; BN if that is None."""
    if num_mixtures is None:
        return nn.BatchNorm2d(features)
    return AttentiveNorm2d(features, num_mixtures)


def norm_name(norm: nn.Module, number: int) -> str:
    """Returns the name of a block's `number`-th norm in the released state dicts."""
    return f"AttnBN2d{number}" if isinstance(norm, AttentiveNorm2d) else f"bn{number}"


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


def conv_norm_relu6(
    in_features: int,
    out_features: int,
    kernel_size: int,
    stride: int = 1,
    groups: int = 1,
    num_mixtures: int | None = None,
) -> nn.Sequential:
    """Convolution, norm (see `norm2d`) and ReLU6."""
    conv = conv2d(in_features, out_features, kernel_size, stride, groups)
    return nn.Sequential(conv, norm2d(out_features, num_mixtures), nn.ReLU6(inplace=True))


class Residual(nn.Module):
    """A residual block: relu(branch(x) + downsample(shortcut)).

    The branch is a chain of convolutions with norms, and ReLUs between them.

    Args:
        in_features: channels of the input.
        convs: (features, kernel size, stride) of each convolution.
        norm: (slot, features) -> norm layer; the slots are "norm1", "norm2", ...
        downsample: the shortcut's layers.
        reductions: slot -> reduction of the SE that follows it.
        dropout: probability that a channel of the branch is dropped in training.
    """

    def __init__(
        self,
        in_features: int,
        convs: Sequence[tuple[int, int, int]],
        norm: Callable[[str, int], nn.Module],
        downsample: nn.Module,
        reductions: Mapping[str, int] | None = None,
        dropout: float = 0.0,
    ):
        super().__init__()
        reductions = reductions or {}
        layers: dict[str, nn.Module] = {}
        for i, (features, kernel_size, stride) in enumerate(convs, start=1):
            slot = f"norm{i}"
            layers[f"conv{i}"] = conv2d(in_features, features, kernel_size, stride)
            normalize = norm(slot, features)
            layers[norm_name(normalize, i)] = normalize
            if slot in reductions:
                name = "se" if len(reductions) == 1 else f"se{i}"
                layers[name] = SqueezeExcite(features, reductions[slot])
            if i < len(convs):
                layers[f"relu{i}"] = nn.ReLU(inplace=True)
            in_features = features
        if dropout:
            layers["dropout"] = nn.Dropout2d(dropout)
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.branch = tuple(layers)
        self.downsample = downsample

    def forward(self, x: torch.Tensor, shortcut: torch.Tensor | None = None) -> torch.Tensor:
        """x and shortcut (default: x) [N, C, H, W] -> [N, C', H', W']."""
        y = x
        for name in self.branch:
            y = getattr(self, name)(y)
        y += self.downsample(x if shortcut is None else shortcut)
        return F.relu(y, inplace=True)


class InvertedResidual(nn.Module):
    """The block of MobileNetV2; see an_jax/models/mobilenet_v2.py for the arguments."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        stride: int,
        expansion: int,
        num_mixtures: int | None,
    ):
        super().__init__()
        hidden = in_features * expansion
        expand = [conv_norm_relu6(in_features, hidden, 1)] if expansion > 1 else []
        depthwise = conv_norm_relu6(
            hidden, hidden, 3, stride, groups=hidden, num_mixtures=num_mixtures
        )
        project = conv2d(hidden, out_features, 1), nn.BatchNorm2d(out_features)
        self.conv = nn.Sequential(*expand, depthwise, *project)
        self.residual = stride == 1 and in_features == out_features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [N, in_features, H, W] -> [N, out_features, H', W']."""
        y = self.conv(x)
        return x + y if self.residual else y


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
