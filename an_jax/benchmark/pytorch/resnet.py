"""ResNet and ResNetV1d in PyTorch."""

import functools
from collections.abc import Callable, Collection, Mapping, Sequence

from torch import nn

from an_jax.benchmark.pytorch.layers import (
    Residual,
    classifier,
    conv2d,
    norm2d,
    norm_name,
)
from an_jax.models.resnet import BasicBlock, Bottleneck

Block = type[BasicBlock] | type[Bottleneck]
SlotNorm = Callable[[str, int], nn.Module]  # (slot, features) -> norm


def create_resnet(
    block: Block,
    depths: Sequence[int],
    *,
    planes: Sequence[int],
    stem: str,
    attentive: Collection[str],
    num_mixtures: Sequence[int],
    squeeze_excite: Mapping[str, int] | None,
    num_classes: int,
) -> nn.Module:
    """Creates a ResNet; see an_jax/models/resnet.py for the arguments."""

    def norm(stage: int, slot: str, features: int) -> nn.Module:
        return norm2d(features, num_mixtures[stage] if slot in attentive else None)

    network = _resnet_stem(stem, planes[0], functools.partial(norm, 0, "stem"))
    features = planes[0]
    for stage, (depth, width) in enumerate(zip(depths, planes, strict=True)):
        blocks = []
        for i in range(depth):
            stride = 2 if stage > 0 and i == 0 else 1
            out_features = width * block.expansion
            slot_norm = functools.partial(norm, stage)
            downsample = _shortcut(features, out_features, stride, stem == "deep", slot_norm)
            convs = _convolutions(block, width, stride)
            blocks.append(Residual(features, convs, slot_norm, downsample, squeeze_excite))
            features = out_features
        network[f"layer{stage + 1}"] = nn.Sequential(*blocks)
    return classifier(network, fc=nn.Linear(features, num_classes))


def _resnet_stem(
    stem: str, features: int, norm: Callable[[int], nn.Module]
) -> dict[str, nn.Module]:
    if stem == "deep":
        half = features // 2
        layers: list[nn.Module] = []
        for n_in, n_out, stride in ((3, half, 2), (half, half, 1), (half, features, 1)):
            layers += [conv2d(n_in, n_out, 3, stride), norm(n_out), nn.ReLU(inplace=True)]
        return {"stem": nn.Sequential(*layers), "stem_pool": nn.MaxPool2d(2)}
    normalize = norm(features)
    network = {
        "conv1": conv2d(3, features, 7, 2) if stem == "7x7" else conv2d(3, features, 3),
        norm_name(normalize, 1): normalize,
        "relu": nn.ReLU(inplace=True),
    }
    if stem == "7x7":
        network["stem_pool"] = nn.MaxPool2d(3, 2, padding=1)
    return network


def _convolutions(block: Block, width: int, stride: int) -> list[tuple[int, int, int]]:
    """Returns (features, kernel size, stride) of each convolution of a block."""
    if block is Bottleneck:
        return [(width, 1, 1), (width, 3, stride), (width * block.expansion, 1, 1)]
    return [(width, 3, stride), (width, 3, 1)]


def _shortcut(
    in_features: int, out_features: int, stride: int, average_shortcut: bool, norm: SlotNorm
) -> nn.Module:
    if stride == 1 and in_features == out_features:
        return nn.Identity()
    layers: list[nn.Module] = []
    if average_shortcut and stride > 1:
        layers.append(nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False))
        stride = 1
    conv = conv2d(in_features, out_features, 1, stride)
    return nn.Sequential(*layers, conv, norm("downsample", out_features))
