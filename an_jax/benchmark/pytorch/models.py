"""The models in plain PyTorch (NCHW), to compare speed with.

They load the released state dicts. Their tables and defaults are those of the JAX models. Their
initialization is PyTorch's, because only speed and loaded weights matter here.
"""

import functools
import inspect
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence

from torch import nn

from an_jax import zoo
from an_jax.benchmark.pytorch.layers import (
    AOGBlock,
    InvertedResidual,
    Residual,
    conv2d,
    conv_norm_relu,
    conv_norm_relu6,
    named_layers,
    norm2d,
    norm_name,
)
from an_jax.errors import InputError
from an_jax.models import aognet, mobilenet_v2, resnet

Block = type[resnet.BasicBlock] | type[resnet.Bottleneck]
SlotNorm = Callable[[str, int], nn.Module]  # (slot, features) -> norm


def create_torch_model(name: str, num_classes: int = 1000) -> nn.Module:
    """Creates the PyTorch counterpart of a model, in training mode.

    Args:
        name: a ResNet, MobileNetV2 or AOGNet of the zoo.
        num_classes: number of logits.

    Returns:
        A module that maps normalized images [N, 3, H, W] to logits [N, num_classes].

    Raises:
        InputError: unknown name, or a model without a counterpart.
    """
    check_twin(name)
    architecture = zoo.get_architecture(name)
    parameters = inspect.signature(architecture.network.__init__).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    arguments = {**defaults, **architecture.arguments, "num_classes": num_classes}
    del arguments["dtype"]
    return TWINS[architecture.network](**arguments)


def check_twin(name: str) -> None:
    """Raises InputError if a model has no PyTorch counterpart."""
    if zoo.get_architecture(name).network not in TWINS:
        raise InputError(
            f"{name} has no PyTorch counterpart: only ResNets, MobileNetV2 and AOGNets have one"
        )


def _resnet(
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
    return _classifier(network, fc=nn.Linear(features, num_classes))


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
    if block is resnet.Bottleneck:
        return [(width, 1, 1), (width, 3, stride), (width * block.expansion, 1, 1)]
    return [(width, 3, stride), (width, 3, 1)]


def _shortcut(
    in_features: int, out_features: int, stride: int, average: bool, norm: SlotNorm
) -> nn.Module:
    if stride == 1 and in_features == out_features:
        return nn.Identity()
    layers: list[nn.Module] = []
    if average and stride > 1:
        layers.append(nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False))
        stride = 1
    conv = conv2d(in_features, out_features, 1, stride)
    return nn.Sequential(*layers, conv, norm("downsample", out_features))


def _mobilenet_v2(*, attentive: bool, num_classes: int) -> nn.Module:
    features = mobilenet_v2.STEM_FEATURES
    network: dict[str, nn.Module] = {"stem": conv_norm_relu6(3, features, 3, 2)}
    head = mobilenet_v2.HEAD_FEATURES
    for number, stage in enumerate(mobilenet_v2.STAGES, start=1):
        mixtures = stage.num_mixtures if attentive else None
        layers: list[nn.Module] = []
        for i in range(stage.depth):
            stride = stage.stride if i == 0 else 1
            layers.append(
                InvertedResidual(features, stage.features, stride, stage.expansion, mixtures)
            )
            features = stage.features
        if number == len(mobilenet_v2.STAGES):
            layers.append(conv_norm_relu6(features, head, 1))
        network[f"layer{number}"] = nn.Sequential(*layers)
    dropout = nn.Dropout(mobilenet_v2.DROPOUT)
    return _classifier(network, classifier=nn.Sequential(dropout, nn.Linear(head, num_classes)))


def _aognet(
    widths: Sequence[int], depths: Sequence[int], *, attentive: bool, num_classes: int
) -> nn.Module:
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
    return _classifier(network, fc=nn.Linear(widths[-1], num_classes))


def _transition(features: int) -> nn.Module:
    conv = conv_norm_relu(features, features, 1)
    return named_layers(transition=nn.Sequential(conv, nn.AvgPool2d(2)))


def _classifier(network: Mapping[str, nn.Module], **head: nn.Module) -> nn.Module:
    return named_layers(**network, pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), **head)


TWINS: dict[type, Callable[..., nn.Module]] = {
    resnet.ResNet: _resnet,
    mobilenet_v2.MobileNetV2: _mobilenet_v2,
    aognet.AOGNet: _aognet,
}
