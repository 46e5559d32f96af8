"""MobileNetV2 in PyTorch."""

import torch
from torch import nn

from an_jax.benchmark.pytorch.layers import (
    classifier,
    conv2d,
    norm2d,
)
from an_jax.models.mobilenet_v2 import DROPOUT, HEAD_FEATURES, STAGES, STEM_FEATURES


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


def create_mobilenet_v2(*, attentive: bool, num_classes: int) -> nn.Module:
    """Creates a MobileNetV2; see an_jax/models/mobilenet_v2.py for the arguments."""
    features = STEM_FEATURES
    network: dict[str, nn.Module] = {"stem": conv_norm_relu6(3, features, 3, 2)}
    for number, stage in enumerate(STAGES, start=1):
        mixtures = stage.num_mixtures if attentive else None
        layers: list[nn.Module] = []
        for i in range(stage.depth):
            stride = stage.stride if i == 0 else 1
            layers.append(
                InvertedResidual(features, stage.features, stride, stage.expansion, mixtures)
            )
            features = stage.features
        if number == len(STAGES):
            layers.append(conv_norm_relu6(features, HEAD_FEATURES, 1))
        network[f"layer{number}"] = nn.Sequential(*layers)
    head = nn.Sequential(nn.Dropout(DROPOUT), nn.Linear(HEAD_FEATURES, num_classes))
    return classifier(network, classifier=head)
