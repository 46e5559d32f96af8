"""ResNet (He et al., CVPR 2016) and ResNetV1d (He et al., CVPR 2019) with BN, AN or SE.

A slot is the place of a norm: "stem", "downsample" (in the shortcut), "norm1", "norm2", "norm3" (in
a block). `Slots` says which norm is in each.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple, Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from an_jax.nn import (
    AttentiveNorm,
    BatchNorm,
    Classifier,
    Conv,
    FeatureMap,
    Layer,
    Options,
    Sequential,
    SqueezeExcite,
    avg_pool_ceil,
    global_avg_pool,
    identity,
    max_pool,
    norm_layer,
)


class Slots(NamedTuple):
    """The norms of a stage.

    Attributes:
        attentive: slots that have AN in place of BN.
        num_mixtures: AN's mixture components.
        reductions: slot -> reduction of the SE that follows its norm.
    """

    attentive: Collection[str]
    num_mixtures: int
    reductions: Mapping[str, int]

    def norm(
        self, slot: str, features: int, *, zero_init: bool = False, **options: Unpack[Options]
    ) -> BatchNorm | AttentiveNorm:
        """Returns AN or BN."""
        num_mixtures = self.num_mixtures if slot in self.attentive else None
        return norm_layer(features, num_mixtures, zero_init=zero_init, **options)

    def squeeze_excite(self, slot: str, features: int, **options: Unpack[Options]) -> Layer:
        """Returns the SE that follows a norm, or the identity."""
        if slot not in self.reductions:
            return identity
        return SqueezeExcite(features, self.reductions[slot], **options)


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions with a shortcut.

    Args:
        in_features: number of channels of the input.
        planes: number of channels of both convolutions' outputs.
        stride: of the first convolution and of the shortcut.
        average_shortcut: whether average pooling reduces a strided shortcut (ResNetV1d).
        slots: the norms.
        **options: dtype and rngs.
    """

    expansion = 1

    def __init__(
        self,
        in_features: int,
        planes: int,
        stride: int,
        average_shortcut: bool,
        slots: Slots,
        **options: Unpack[Options],
    ):
        self.conv1 = Conv(in_features, planes, 3, stride=stride, padding=1, **options)
        self.norm1 = slots.norm("norm1", planes, **options)
        self.conv2 = Conv(planes, planes, 3, padding=1, **options)
        self.norm2 = slots.norm("norm2", planes, zero_init=True, **options)
        self.downsample = shortcut(in_features, planes, stride, average_shortcut, slots, **options)
        self.se1 = slots.squeeze_excite("norm1", planes, **options)
        self.se2 = slots.squeeze_excite("norm2", planes, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x [N, H, W, in_features] to [N, H', W', planes]."""
        y = jax.nn.relu(self.se1(self.norm1(self.conv1(x))))
        y = self.se2(self.norm2(self.conv2(y)))
        return jax.nn.relu(y + self.downsample(x))


class Bottleneck(nnx.Module):
    """1x1, 3x3 and 1x1 convolutions with a shortcut: `planes` channels inside, 4 planes outside.

    The arguments are those of BasicBlock; the 3x3 convolution has the stride.
    """

    expansion = 4

    def __init__(
        self,
        in_features: int,
        planes: int,
        stride: int,
        average_shortcut: bool,
        slots: Slots,
        **options: Unpack[Options],
    ):
        features = planes * self.expansion
        self.conv1 = Conv(in_features, planes, 1, **options)
        self.norm1 = slots.norm("norm1", planes, **options)
        self.conv2 = Conv(planes, planes, 3, stride=stride, padding=1, **options)
        self.norm2 = slots.norm("norm2", planes, **options)
        self.conv3 = Conv(planes, features, 1, **options)
        self.norm3 = slots.norm("norm3", features, zero_init=True, **options)
        self.downsample = shortcut(
            in_features, features, stride, average_shortcut, slots, **options
        )
        self.se1 = slots.squeeze_excite("norm1", planes, **options)
        self.se2 = slots.squeeze_excite("norm2", planes, **options)
        self.se3 = slots.squeeze_excite("norm3", features, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x [N, H, W, in_features] to [N, H', W', 4 planes]."""
        y = jax.nn.relu(self.se1(self.norm1(self.conv1(x))))
        y = jax.nn.relu(self.se2(self.norm2(self.conv2(y))))
        y = self.se3(self.norm3(self.conv3(y)))
        return jax.nn.relu(y + self.downsample(x))


def shortcut(
    in_features: int,
    out_features: int,
    stride: int,
    average_shortcut: bool,
    slots: Slots,
    **options: Unpack[Options],
) -> Layer:
    """Returns the identity if the shapes agree, else a 1x1 convolution and a norm."""
    if stride == 1 and in_features == out_features:
        return identity
    layers: list[Layer] = []
    if average_shortcut and stride > 1:
        layers.append(avg_pool_ceil)
        stride = 1
    layers.append(Conv(in_features, out_features, 1, stride=stride, **options))
    layers.append(slots.norm("downsample", out_features, **options))
    return Sequential(layers)


def deep_stem(
    in_features: int, features: int, slots: Slots, **options: Unpack[Options]
) -> Sequential:
    """Returns ResNetV1d's stem: three 3x3 convolutions, each with a norm and ReLU."""
    half = features // 2
    layers: list[Layer] = []
    for out_features, stride in ((half, 2), (half, 1), (features, 1)):
        layers.append(Conv(in_features, out_features, 3, stride=stride, padding=1, **options))
        layers.append(slots.norm("stem", out_features, **options))
        layers.append(jax.nn.relu)
        in_features = out_features
    return Sequential(layers)


class ResNet(nnx.Module):
    """Residual network for images of any size; below 33 px the last maps are single pixels.

    Args:
        block: BasicBlock or Bottleneck.
        depths: number of blocks of each stage.
        planes: width of each stage.
        stem: "7x7" (ResNet), "deep" (ResNetV1d: three 3x3) or "3x3" (small images, no pooling).
        attentive: slots that have AN in place of BN.
        num_mixtures: AN's mixture components of each stage; the stem has those of the first.
        squeeze_excite: slot -> reduction of the SE that follows its norm.
        num_classes: number of logits; 0: no classifier.
        in_features: channels of the images.
        dtype: compute dtype; parameters, statistics and logits are at least float32.
        rngs: source of the initialization.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: tuple[int, ...],
        *,
        planes: tuple[int, ...] = (64, 128, 256, 512),
        stem: str = "7x7",
        attentive: Collection[str] = (),
        num_mixtures: tuple[int, ...] = (10, 10, 20, 20),
        squeeze_excite: Mapping[str, int] | None = None,
        num_classes: int,
        in_features: int = 3,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        options = Options(dtype=dtype, rngs=rngs)
        slots = [Slots(attentive, mixtures, squeeze_excite or {}) for mixtures in num_mixtures]
        features = planes[0]
        if stem == "deep":
            self.stem = deep_stem(in_features, features, slots[0], **options)
        else:
            size, stride = {"7x7": (7, 2), "3x3": (3, 1)}[stem]
            self.conv1 = Conv(
                in_features, features, size, stride=stride, padding=size // 2, **options
            )
            self.norm1 = slots[0].norm("stem", features, **options)
        self.stem_kind = stem
        self.num_stages = len(depths)
        total_stride = 1 if stem == "3x3" else 4
        feature_info = [FeatureMap(total_stride, features)]
        for stage, (depth, width) in enumerate(zip(depths, planes, strict=True)):
            blocks: list[Layer] = []
            for i in range(depth):
                stride = 2 if stage > 0 and i == 0 else 1
                blocks.append(
                    block(features, width, stride, stem == "deep", slots[stage], **options)
                )
                features = width * block.expansion
            setattr(self, f"layer{stage + 1}", Sequential(blocks))
            feature_info.append(FeatureMap(total_stride * 2**stage, features))
        self.feature_info = tuple(feature_info)
        self.fc = Classifier(features, num_classes, **options) if num_classes else identity

    def features(self, images: jax.Array) -> list[jax.Array]:
        """Returns the maps of `feature_info`: the stem's after pooling, and each stage's (NHWC)."""
        if self.stem_kind == "deep":
            x = max_pool(self.stem(images), 2, 2)
        else:
            x = jax.nn.relu(self.norm1(self.conv1(images)))
            if self.stem_kind == "7x7":
                x = max_pool(x, 3, 2, padding=1)
        outputs = [x]
        for stage in range(self.num_stages):
            outputs.append(getattr(self, f"layer{stage + 1}")(outputs[-1]))
        return outputs

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps normalized images [N, H, W, in_features] to logits [N, num_classes].

        Without a classifier, to pooled features [N, C]. Both are at least float32.
        """
        return self.fc(global_avg_pool(self.features(images)[-1]))
