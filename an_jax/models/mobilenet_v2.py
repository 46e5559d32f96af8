"""MobileNetV2 (Sandler et al., CVPR 2018), width 1, with BN or AN."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from an_jax.nn import BatchNorm, Classifier, Conv, Sequential, global_avg_pool, norm_layer


class Stage(NamedTuple):
    """A row of the paper's table 2, expansion t, channels c, depth n, stride s; and AN's mixture
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
        expansion: channels inside over in_features; at 1 there is no expanding convolution.
        num_mixtures: of AN after the depthwise convolution; None for BN.
        dtype, rngs: compute dtype, and source of the initialization.
    """

    def __init__(self, in_features, out_features, stride, expansion, num_mixtures, *, dtype, rngs):
        kwargs = {"dtype": dtype, "rngs": rngs}
        hidden = in_features * expansion
        expand = Sequential(
            [Conv(in_features, hidden, 1, **kwargs), BatchNorm(hidden, dtype=dtype), jax.nn.relu6]
        )
        depthwise = Sequential(
            [
                Conv(hidden, hidden, 3, stride=stride, padding=1, groups=hidden, **kwargs),
                norm_layer(hidden, num_mixtures, **kwargs),
                jax.nn.relu6,
            ]
        )
        project = Conv(hidden, out_features, 1, **kwargs), BatchNorm(out_features, dtype=dtype)
        self.conv = Sequential([*([expand] if expansion > 1 else []), depthwise, *project])
        self.residual = stride == 1 and in_features == out_features

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [N, H, W, in_features] -> [N, H', W', out_features]."""
        y = self.conv(x)
        return x + y if self.residual else y


class MobileNetV2(nnx.Module):
    """MobileNetV2 for images of any size.

    Args:
        attentive: whether AN stands in place of BN after the depthwise convolutions.
        num_classes: size of the head.
        dtype: compute dtype; parameters, statistics and logits are at least float32.
    """

    def __init__(
        self,
        *,
        attentive: bool,
        num_classes: int,
        dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        kwargs = {"dtype": dtype, "rngs": rngs}

        def unit(in_features, out_features, kernel_size, **options):
            conv = Conv(in_features, out_features, kernel_size, **options, **kwargs)
            return Sequential([conv, BatchNorm(out_features, dtype=dtype), jax.nn.relu6])

        self.stem = unit(3, STEM_FEATURES, 3, stride=2, padding=1)
        features = STEM_FEATURES
        for number, stage in enumerate(STAGES, start=1):
            blocks = []
            for i in range(stage.depth):
                stride = stage.stride if i == 0 else 1
                block = InvertedResidual(
                    features,
                    stage.features,
                    stride,
                    stage.expansion,
                    stage.num_mixtures if attentive else None,
                    **kwargs,
                )
                blocks.append(block)
                features = stage.features
            if number == len(STAGES):
                blocks.append(unit(features, HEAD_FEATURES, 1))
            setattr(self, f"layer{number}", Sequential(blocks))
        logits = Classifier(HEAD_FEATURES, num_classes, std=0.01, **kwargs)
        self.classifier = Sequential([nnx.Dropout(DROPOUT), logits])

    def features(self, images: jax.Array) -> list[jax.Array]:
        """images [N, H, W, 3] -> outputs of the stem and of each stage, NHWC; the last has the
        1280 channels that are pooled."""
        outputs = [self.stem(images)]
        for number in range(1, len(STAGES) + 1):
            outputs.append(getattr(self, f"layer{number}")(outputs[-1]))
        return outputs

    def __call__(self, images: jax.Array) -> jax.Array:
        """images: normalized [N, H, W, 3] -> logits [N, num_classes], at least float32."""
        return self.classifier(global_avg_pool(self.features(images)[-1]))
