"""Plain PyTorch twins of the models, to measure against: the same networks, in NCHW.

They load the released state dicts, by the same keys. Tables and defaults are those of the zoo and
of the JAX models; initial values are PyTorch's, since only speed and loaded weights count here.
"""

import functools
import itertools

from torch import nn

from an_jax import zoo
from an_jax.benchmark.torch_layers import (
    AOGBlock,
    InvertedResidual,
    Residual,
    conv2d,
    conv_norm,
    conv_norm_relu6,
    named_layers,
    named_norm,
    norm2d,
)
from an_jax.errors import InputError
from an_jax.models import aognet, mobilenet_v2, resnet


def create_torch_model(name: str, num_classes: int = 1000) -> nn.Module:
    """The PyTorch twin of a model, in training mode.

    Args:
        name: a ResNet, MobileNetV2 or AOGNet of `an_jax.zoo`.
        num_classes: number of logits.

    Returns:
        A module that maps normalized images [N, 3, H, W] to logits [N, num_classes].

    Raises:
        InputError: unknown name, or a model without a twin.
    """
    check_twin(name)
    architecture = zoo.get_architecture(name)
    arguments = architecture.network.__init__.__kwdefaults__ | architecture.arguments
    del arguments["dtype"]
    return TWINS[architecture.network](**arguments, num_classes=num_classes)


def check_twin(name: str) -> None:
    """Raises InputError for a model without a twin."""
    if zoo.get_architecture(name).network not in TWINS:
        raise InputError(
            f"no PyTorch twin of {name}; there are twins of ResNets, MobileNetV2 and AOGNets"
        )


def _resnet(
    block, depths, *, planes, stem, attentive, num_mixtures, squeeze_excite, num_classes
) -> nn.Module:
    def norm_of_stage(stage):
        return lambda slot, width: norm2d(width, num_mixtures[stage] if slot in attentive else None)

    features, norm = planes[0], functools.partial(norm_of_stage(0), "stem")
    if stem == "deep":
        layers = []
        half = features // 2
        for n_in, n_out, stride in ((3, half, 2), (half, half, 1), (half, features, 1)):
            layers += [conv2d(n_in, n_out, 3, stride), norm(n_out), nn.ReLU(inplace=True)]
        network = {"stem": nn.Sequential(*layers), "stem_pool": nn.MaxPool2d(2)}
    else:
        conv = conv2d(3, features, 7, 2) if stem == "7x7" else conv2d(3, features, 3)
        network = {"conv1": conv, **named_norm(norm(features), 1), "relu": nn.ReLU(inplace=True)}
        if stem == "7x7":
            network["stem_pool"] = nn.MaxPool2d(3, 2, padding=1)
    for number, (depth, width) in enumerate(zip(depths, planes, strict=True), start=1):
        norm = norm_of_stage(number - 1)
        blocks = []
        for i in range(depth):
            stride = 2 if number > 1 and i == 0 else 1
            out_features = width * block.expansion
            if block is resnet.Bottleneck:
                convs = [(width, 1, 1), (width, 3, stride), (out_features, 1, 1)]
            else:
                convs = [(width, 3, stride), (width, 3, 1)]
            downsample = nn.Identity()
            if stride > 1 or features != out_features:
                pooled = stem == "deep" and stride > 1
                pool = [nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False)] if pooled else []
                conv = conv2d(features, out_features, 1, 1 if pooled else stride)
                downsample = nn.Sequential(*pool, conv, norm("downsample", out_features))
            blocks.append(Residual(features, convs, norm, downsample, squeeze_excite))
            features = out_features
        network[f"layer{number}"] = nn.Sequential(*blocks)
    return _classifying(network, fc=nn.Linear(features, num_classes))


def _mobilenet_v2(*, attentive, num_classes) -> nn.Module:
    features = mobilenet_v2.STEM_FEATURES
    network = {"stem": conv_norm_relu6(3, features, 3, 2)}
    for number, stage in enumerate(mobilenet_v2.STAGES, start=1):
        blocks = []
        for i in range(stage.depth):
            stride = stage.stride if i == 0 else 1
            mixtures = stage.num_mixtures if attentive else None
            block = InvertedResidual(features, stage.features, stride, stage.expansion, mixtures)
            blocks.append(block)
            features = stage.features
        network[f"layer{number}"] = nn.Sequential(*blocks)
    head = mobilenet_v2.HEAD_FEATURES
    network[f"layer{number}"].append(conv_norm_relu6(features, head, 1))
    dropout = nn.Dropout(mobilenet_v2.DROPOUT)
    return _classifying(network, classifier=nn.Sequential(dropout, nn.Linear(head, num_classes)))


def _aognet(widths, depths, *, attentive, num_classes) -> nn.Module:
    half = widths[0] // 2
    units = [(3, half, 3, 2), (half, half, 3), (half, widths[0], 3)]
    stem = nn.Sequential(*(conv_norm(*unit, relu=True) for unit in units))
    network = {"stem": named_layers(conv1=stem), "stem_pool": nn.MaxPool2d(2)}
    for number, (stage, depth) in enumerate(zip(aognet.STAGES, depths, strict=True), start=1):
        features = aognet.block_widths(widths[number - 1], widths[number], depth, stage.dim)
        mixtures = stage.num_mixtures if attentive else None
        blocks = []
        for i, (n_in, n_out) in enumerate(itertools.pairwise(features), start=1):
            transition = nn.Identity()
            if number > 1 and i == 1:
                conv = conv_norm(n_in, n_in, 1, relu=True)
                transition = named_layers(transition=nn.Sequential(conv, nn.AvgPool2d(2)))
            prefix = f"stage_{number}_block_{i}"
            blocks += [transition, AOGBlock(n_in, n_out, stage, mixtures, prefix)]
        network[f"layer{number}"] = nn.Sequential(*blocks)
    return _classifying(network, fc=nn.Linear(widths[-1], num_classes))


def _classifying(network: dict[str, nn.Module], **head) -> nn.Module:
    return named_layers(**network, pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), **head)


TWINS = {
    resnet.ResNet: _resnet,
    mobilenet_v2.MobileNetV2: _mobilenet_v2,
    aognet.AOGNet: _aognet,
}
