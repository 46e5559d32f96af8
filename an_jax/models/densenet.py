"""DenseNet-121 (Huang et al., CVPR 2017) with BN or AN."""

from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from an_jax.nn import (
    BatchNorm,
    Classifier,
    Conv,
    ConvNorm,
    FeatureMap,
    Layer,
    Options,
    Sequential,
    avg_pool,
    global_avg_pool,
    identity,
    max_pool,
    norm_layer,
)

STEM_FEATURES = 64
GROWTH_RATE = 32
BOTTLENECK_FEATURES = 4 * GROWTH_RATE
DEPTHS = (6, 12, 24, 16)  # layers of each block
NUM_MIXTURES = (10, 10, 20, 20)  # of AN in each block


class DenseLayer(nnx.Module):
    """BN, ReLU, 1x1 convolution, norm, ReLU, 3x3 convolution: GROWTH_RATE new channels.

    Args:
        in_features: number of channels of all earlier outputs together.
        num_mixtures: of AN as the second norm; None for BN.
        **options: dtype and rngs.
    """

    def __init__(self, in_features: int, num_mixtures: int | None, **options: Unpack[Options]):
        self.norm1 = BatchNorm(in_features, **options)
        self.conv1 = Conv(in_features, BOTTLENECK_FEATURES, 1, **options)
        self.norm2 = norm_layer(BOTTLENECK_FEATURES, num_mixtures, **options)
        self.conv2 = Conv(BOTTLENECK_FEATURES, GROWTH_RATE, 3, padding=1, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x [N, H, W, in_features] to [N, H, W, GROWTH_RATE]."""
        y = self.conv1(jax.nn.relu(self.norm1(x)))
        return self.conv2(jax.nn.relu(self.norm2(y)))


class DenseBlock(nnx.Module):
    """Layers that each take the block's input and the outputs of all earlier layers.

    Args:
        in_features: number of channels of the block's input.
        depth: number of layers.
        num_mixtures, **options: as in DenseLayer.
    """

    def __init__(
        self, in_features: int, depth: int, num_mixtures: int | None, **options: Unpack[Options]
    ):
        self.depth = depth
        for i in range(depth):
            layer = DenseLayer(in_features + i * GROWTH_RATE, num_mixtures, **options)
            setattr(self, f"denselayer{i + 1}", layer)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x [N, H, W, C] to x and all outputs, [N, H, W, C + depth GROWTH_RATE]."""
        for i in range(self.depth):
            layer = getattr(self, f"denselayer{i + 1}")
            x = jnp.concatenate([x, layer(x)], axis=-1)
        return x


class Transition(nnx.Module):
    """BN, ReLU, 1x1 convolution to half the channels, average pooling to half the resolution."""

    def __init__(self, in_features: int, **options: Unpack[Options]):
        self.norm = BatchNorm(in_features, **options)
        self.conv = Conv(in_features, in_features // 2, 1, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x [N, H, W, C] to [N, H // 2, W // 2, C // 2]."""
        return avg_pool(self.conv(jax.nn.relu(self.norm(x))))


class DenseNet(nnx.Module):
    """DenseNet-121 for images of at least 29 px.

    Args:
        attentive: whether the second norm of each layer is AN.
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
        features = STEM_FEATURES
        self.stem = ConvNorm(
            in_features, features, 7, stride=2, padding=3, activation=jax.nn.relu, **options
        )
        feature_info = [FeatureMap(4, features)]
        for number, (depth, mixtures) in enumerate(zip(DEPTHS, NUM_MIXTURES, strict=True), start=1):
            block = DenseBlock(features, depth, mixtures if attentive else None, **options)
            features += depth * GROWTH_RATE
            if number < len(DEPTHS):
                layers: list[Layer] = [block, Transition(features, **options)]
                features //= 2
            else:
                layers = [block, BatchNorm(features, **options), jax.nn.relu]
            setattr(self, f"layer{number}", Sequential(layers))
            feature_info.append(FeatureMap(min(4 * 2**number, 32), features))
        self.feature_info = tuple(feature_info)
        self.classifier = Classifier(features, num_classes, **options) if num_classes else identity

    def features(self, images: jax.Array) -> list[jax.Array]:
        """Returns the maps of `feature_info`: the stem's after pooling, and each stage's (NHWC)."""
        outputs = [max_pool(self.stem(images), 3, 2, padding=1)]
        for number in range(1, len(DEPTHS) + 1):
            outputs.append(getattr(self, f"layer{number}")(outputs[-1]))
        return outputs

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps normalized images [N, H, W, in_features] to logits [N, num_classes].

        Without a classifier, to pooled features [N, C]. Both are at least float32.
        """
        return self.classifier(global_avg_pool(self.features(images)[-1]))
