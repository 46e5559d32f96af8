"""Layers in PyTorch (NCHW), with the names of the released state dicts."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional as F

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


def classifier(network: Mapping[str, nn.Module], **head: nn.Module) -> nn.Sequential:
    """Returns the network, followed by global average pooling and the head."""
    return named_layers(**network, pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), **head)
