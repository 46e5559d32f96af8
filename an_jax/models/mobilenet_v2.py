"""MobileNetV2 (Sandler et al., CVPR 2018), width 1, with BN or AN."""

from typing import NamedTuple, Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from an_jax.nn import (
    BatchNorm,
    Classifier,
    Conv,
    Dropout,
    FeatureMap,
    Layer,
    Options,
    Sequential,
    global_avg_pool,
    identity,
    norm_layer,
)


class Stage(NamedTuple):
    """A row of the paper's table 2 (expansion t, channels c, depth n, stride s), and AN's mixture
    components."""

    expansion: int
    features: int
    depth: int
    stride: int
    num_mixtures: int


STAGES = (
    Stage(1, 16, 1, 1, 5),
    Stage(6, 24, 2, 2, 5),
    Stage(6, 32, 3, 2, 5),
    Stage(6, 64, 4, 2, 5),
    Stage(6, 96, 3, 1, 10),
    Stage(6, 160, 3, 2, 10),
    Stage(6, 320, 1, 1, 10),
)
STEM_FEATURES = 32
HEAD_FEATURES = 1280
DROPOUT = 0.2


class InvertedResidual(nnx.Module):
    """1x1 expansion, depthwise 3x3 and 1x1 projection, with a shortcut where shapes agree.

    Args:
        in_features, out_features: numbers of channels.
        stride: of the depthwise convolution.
        expansion: channels inside over in_features; at 1 there is no expansion.
        num_mixtures: of AN after the depthwise convolution; None for BN.
        **options: dtype and rngs.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        stride: int,
        expansion: int,
        num_mixtures: int | None,
        **options: Unpack[Options],
    ):
        hidden = in_features * expansion
        # Created even if unused, so that a seed keeps giving the same initial weights.
        expand = conv_norm_relu6(in_features, hidden, 1, **options)
        depthwise = Sequential(
            [
                Conv(hidden, hidden, 3, stride=stride, padding=1, groups=hidden, **options),
                norm_layer(hidden, num_mixtures, **options),
                jax.nn.relu6,
            ]
        )
        layers: list[Layer] = [expand] if expansion > 1 else []
        layers.append(depthwise)
        layers.append(Conv(hidden, out_features, 1, **options))
        layers.append(BatchNorm(out_features, **options))
        self.conv = Sequential(layers)
        self.residual = stride == 1 and in_features == out_features

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x [N, H, W, in_features] to [N, H', W', out_features]."""
        y = self.conv(x)
        return x + y if self.residual else y


def conv_norm_relu6(
    in_features: int,
    out_features: int,
    kernel_size: int,
    *,
    stride: int = 1,
    padding: int = 0,
    **options: Unpack[Options],
) -> Sequential:
    """Returns a convolution, BN and ReLU6."""
    conv = Conv(in_features, out_features, kernel_size, stride=stride, padding=padding, **options)
    return Sequential([conv, BatchNorm(out_features, **options), jax.nn.relu6])


class MobileNetV2(nnx.Module):
    """MobileNetV2 for images of any size.

    Args:
        attentive: whether the norms after depthwise convolutions are AN.
        num_classes: number of logits; 0: no classifier.
        in_features: channels of the images.
        dtype: compute dtype; parameters, statistics and logits are at least float32.
        rngs: source of the initialization.
    """

    def __init__(
        self,
        *,
        attentive: bool,
        num_classes: int,
        in_features: int = 3,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        options = Options(dtype=dtype, rngs=rngs)
        self.stem = conv_norm_relu6(in_features, STEM_FEATURES, 3, stride=2, padding=1, **options)
        features, total_stride = STEM_FEATURES, 2
        feature_info = [FeatureMap(total_stride, features)]
        for number, stage in enumerate(STAGES, start=1):
            blocks: list[Layer] = []
            for i in range(stage.depth):
                stride = stage.stride if i == 0 else 1
                block = InvertedResidual(
                    features,
                    stage.features,
                    stride,
                    stage.expansion,
                    stage.num_mixtures if attentive else None,
                    **options,
                )
                blocks.append(block)
                features = stage.features
            if number == len(STAGES):
                blocks.append(conv_norm_relu6(features, HEAD_FEATURES, 1, **options))
                features = HEAD_FEATURES
            setattr(self, f"layer{number}", Sequential(blocks))
            total_stride *= stage.stride
            feature_info.append(FeatureMap(total_stride, features))
        self.feature_info = tuple(feature_info)
        classifier: Layer = identity
        if num_classes:
            logits = Classifier(features, num_classes, std=0.01, **options)
            classifier = Sequential([Dropout(DROPOUT), logits])
        self.classifier = classifier

    def features(self, images: jax.Array) -> list[jax.Array]:
        """Returns the maps of `feature_info`: the stem's and each stage's (NHWC).

        The last one includes the 1x1 convolution to 1280 channels.
        """
        outputs = [self.stem(images)]
        for number in range(1, len(STAGES) + 1):
            outputs.append(getattr(self, f"layer{number}")(outputs[-1]))
        return outputs

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps normalized images [N, H, W, in_features] to logits [N, num_classes].

        Without a classifier, to pooled features [N, C]. Both are at least float32.
        """
        return self.classifier(global_avg_pool(self.features(images)[-1]))
