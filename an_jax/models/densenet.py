"""DenseNet-121 (Huang et al., CVPR 2017) with BN or AN."""

import jax
import jax.numpy as jnp
from flax import nnx

from an_jax.nn import (
    BatchNorm,
    Classifier,
    Conv,
    ConvNorm,
    Sequential,
    avg_pool,
    global_avg_pool,
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
        dtype, rngs: compute dtype, and source of the initialization.
    """

    def __init__(self, in_features, num_mixtures, *, dtype, rngs):
        kwargs = {"dtype": dtype, "rngs": rngs}
        self.norm1 = BatchNorm(in_features, dtype=dtype)
        self.conv1 = Conv(in_features, BOTTLENECK_FEATURES, 1, **kwargs)
        self.norm2 = norm_layer(BOTTLENECK_FEATURES, num_mixtures, **kwargs)
        self.conv2 = Conv(BOTTLENECK_FEATURES, GROWTH_RATE, 3, padding=1, **kwargs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [N, H, W, in_features] -> [N, H, W, GROWTH_RATE]."""
        y = self.conv1(jax.nn.relu(self.norm1(x)))
        return self.conv2(jax.nn.relu(self.norm2(y)))


class DenseBlock(nnx.Module):
    """Layers that each take the outputs of all before, and the block's input.

    Args:
        in_features: number of channels of the block's input.
        depth: number of layers.
        num_mixtures, dtype, rngs: as in DenseLayer.
    """

    def __init__(self, in_features, depth, num_mixtures, *, dtype, rngs):
        self.depth = depth
        for i in range(depth):
            layer = DenseLayer(in_features + i * GROWTH_RATE, num_mixtures, dtype=dtype, rngs=rngs)
            setattr(self, f"denselayer{i + 1}", layer)

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [N, H, W, C] -> x and all outputs, [N, H, W, C + depth GROWTH_RATE]."""
        for i in range(self.depth):
            layer = getattr(self, f"denselayer{i + 1}")
            x = jnp.concatenate([x, layer(x)], axis=-1)
        return x


class Transition(nnx.Module):
    """BN, ReLU, 1x1 convolution to half the channels, average pooling to half the resolution."""

    def __init__(self, in_features, *, dtype, rngs):
        self.norm = BatchNorm(in_features, dtype=dtype)
        self.conv = Conv(in_features, in_features // 2, 1, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [N, H, W, C] -> [N, H // 2, W // 2, C // 2]."""
        return avg_pool(self.conv(jax.nn.relu(self.norm(x))))


class DenseNet(nnx.Module):
    """DenseNet-121 for images of at least 29 px.

    Args:
        attentive: whether AN stands in place of BN as the second norm of each layer.
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
        features = STEM_FEATURES
        self.stem = ConvNorm(3, features, 7, stride=2, padding=3, activation=jax.nn.relu, **kwargs)
        for number, (depth, mixtures) in enumerate(zip(DEPTHS, NUM_MIXTURES, strict=True), start=1):
            block = DenseBlock(features, depth, mixtures if attentive else None, **kwargs)
            features += depth * GROWTH_RATE
            if number < len(DEPTHS):
                layers = [block, Transition(features, **kwargs)]
                features //= 2
            else:
                layers = [block, BatchNorm(features, dtype=dtype), jax.nn.relu]
            setattr(self, f"layer{number}", Sequential(layers))
        self.classifier = Classifier(features, num_classes, **kwargs)

    def features(self, images: jax.Array) -> list[jax.Array]:
        """images [N, H, W, 3] -> the stem's output after pooling, then each stage's (NHWC)."""
        outputs = [max_pool(self.stem(images), 3, 2, padding=1)]
        for number in range(1, len(DEPTHS) + 1):
            outputs.append(getattr(self, f"layer{number}")(outputs[-1]))
        return outputs

    def __call__(self, images: jax.Array) -> jax.Array:
        """images: normalized [N, H, W, 3] -> logits [N, num_classes], at least float32."""
        return self.classifier(global_avg_pool(self.features(images)[-1]))
