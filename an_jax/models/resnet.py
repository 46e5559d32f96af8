"""ResNet (He et al., CVPR 2016) and ResNetV1d (He et al., CVPR 2019) with BN, AN or SE.

Slots name the places of a norm: "stem", "downsample" (the shortcut's), "norm1", "norm2", "norm3".
"""

from collections.abc import Callable, Collection, Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from an_jax.nn import (
    Classifier,
    Conv,
    Sequential,
    SqueezeExcite,
    avg_pool_ceil,
    global_avg_pool,
    identity,
    max_pool,
    norm_layer,
)


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions: `planes` channels in and out of both.

    Args:
        in_features: channels of the input.
        planes: width of the block.
        stride: of the first convolution and of the shortcut.
        average_shortcut: reduce a strided shortcut by average pooling (ResNetV1d).
        norm: (slot, features, zero_init=False) -> norm layer.
        squeeze_excite: (slot, features) -> SqueezeExcite or identity.
        dtype, rngs: compute dtype, and source of the initialization.
    """

    expansion = 1

    def __init__(
        self, in_features, planes, stride, average_shortcut, *, norm, squeeze_excite, dtype, rngs
    ):
        kwargs = {"dtype": dtype, "rngs": rngs}
        self.conv1 = Conv(in_features, planes, 3, stride=stride, padding=1, **kwargs)
        self.norm1 = norm("norm1", planes)
        self.conv2 = Conv(planes, planes, 3, padding=1, **kwargs)
        self.norm2 = norm("norm2", planes, zero_init=True)
        self.downsample = shortcut(in_features, planes, stride, average_shortcut, norm, **kwargs)
        self.se1 = squeeze_excite("norm1", planes)
        self.se2 = squeeze_excite("norm2", planes)

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [N, H, W, in_features] -> [N, H', W', planes]."""
        y = jax.nn.relu(self.se1(self.norm1(self.conv1(x))))
        y = self.se2(self.norm2(self.conv2(y)))
        return jax.nn.relu(y + self.downsample(x))


class Bottleneck(nnx.Module):
    """1x1, 3x3 and 1x1 convolutions: `planes` channels inside, four times as many out.

    Arguments as in BasicBlock; the stride is that of the 3x3 convolution.
    """

    expansion = 4

    def __init__(
        self, in_features, planes, stride, average_shortcut, *, norm, squeeze_excite, dtype, rngs
    ):
        kwargs = {"dtype": dtype, "rngs": rngs}
        out_features = planes * self.expansion
        self.conv1 = Conv(in_features, planes, 1, **kwargs)
        self.norm1 = norm("norm1", planes)
        self.conv2 = Conv(planes, planes, 3, stride=stride, padding=1, **kwargs)
        self.norm2 = norm("norm2", planes)
        self.conv3 = Conv(planes, out_features, 1, **kwargs)
        self.norm3 = norm("norm3", out_features, zero_init=True)
        self.downsample = shortcut(
            in_features, out_features, stride, average_shortcut, norm, **kwargs
        )
        self.se1 = squeeze_excite("norm1", planes)
        self.se2 = squeeze_excite("norm2", planes)
        self.se3 = squeeze_excite("norm3", out_features)

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [N, H, W, in_features] -> [N, H', W', 4 planes]."""
        y = jax.nn.relu(self.se1(self.norm1(self.conv1(x))))
        y = jax.nn.relu(self.se2(self.norm2(self.conv2(y))))
        y = self.se3(self.norm3(self.conv3(y)))
        return jax.nn.relu(y + self.downsample(x))


def shortcut(in_features, out_features, stride, average, norm, *, dtype, rngs) -> Callable:
    """The residual branch: identity where shapes agree, else a 1x1 convolution and a norm."""
    if stride == 1 and in_features == out_features:
        return identity
    pool = [avg_pool_ceil] if average and stride > 1 else []
    stride = 1 if pool else stride
    conv = Conv(in_features, out_features, 1, stride=stride, dtype=dtype, rngs=rngs)
    return Sequential([*pool, conv, norm("downsample", out_features)])


class ResNet(nnx.Module):
    """Residual network for images of any size; below 33 px the last maps are single pixels.

    Args:
        block: BasicBlock or Bottleneck.
        depths: number of blocks of each stage.
        planes: width of each stage.
        stem: "7x7" (ResNet), "deep" (ResNetV1d: three 3x3) or "3x3" (small images, no pooling).
        attentive: slots where AN stands in place of BN.
        num_mixtures: AN's mixture components by stage; the stem takes the first.
        squeeze_excite: slot -> reduction of the SE that follows it.
        num_classes: size of the head.
        dtype: compute dtype; parameters, statistics and logits are at least float32.
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
        dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        reductions = squeeze_excite or {}
        kwargs = {"dtype": dtype, "rngs": rngs}

        def norm_of_stage(stage):
            def norm(slot, features, zero_init=False):
                mixtures = num_mixtures[stage] if slot in attentive else None
                return norm_layer(features, mixtures, zero_init=zero_init, **kwargs)

            return norm

        def excite(slot, features):
            if slot not in reductions:
                return identity
            return SqueezeExcite(features, reductions[slot], **kwargs)

        features = planes[0]
        norm = norm_of_stage(0)
        if stem == "deep":
            half = features // 2
            self.stem = Sequential(
                [
                    *(Conv(3, half, 3, stride=2, padding=1, **kwargs), norm("stem", half)),
                    jax.nn.relu,
                    *(Conv(half, half, 3, padding=1, **kwargs), norm("stem", half)),
                    jax.nn.relu,
                    *(Conv(half, features, 3, padding=1, **kwargs), norm("stem", features)),
                    jax.nn.relu,
                ]
            )
        else:
            size, stride = {"7x7": (7, 2), "3x3": (3, 1)}[stem]
            self.conv1 = Conv(3, features, size, stride=stride, padding=size // 2, **kwargs)
            self.norm1 = norm("stem", features)
        self.stem_kind = stem
        self.num_stages = len(depths)
        for stage, (depth, width) in enumerate(zip(depths, planes, strict=True)):
            blocks = []
            for i in range(depth):
                stride = 2 if stage > 0 and i == 0 else 1
                blocks.append(
                    block(
                        features,
                        width,
                        stride,
                        average_shortcut=stem == "deep",
                        norm=norm_of_stage(stage),
                        squeeze_excite=excite,
                        **kwargs,
                    )
                )
                features = width * block.expansion
            setattr(self, f"layer{stage + 1}", Sequential(blocks))
        self.fc = Classifier(features, num_classes, **kwargs)

    def features(self, images: jax.Array) -> list[jax.Array]:
        """images [N, H, W, 3] -> the stem's output after pooling, then each stage's (NHWC)."""
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
        """images: normalized [N, H, W, 3] -> logits [N, num_classes], at least float32."""
        return self.fc(global_avg_pool(self.features(images)[-1]))
