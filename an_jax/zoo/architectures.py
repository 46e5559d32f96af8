"""The architectures: name -> constructor, its arguments, and the preprocessing of images."""

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from an_jax.errors import InputError
from an_jax.models.aognet import AOGNet
from an_jax.models.densenet import DenseNet
from an_jax.models.mobilenet_v2 import MobileNetV2
from an_jax.models.resnet import BasicBlock, Bottleneck, ResNet

INTERPOLATIONS = ("bilinear", "bicubic")


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How an image is made a model's input.

    Attributes:
        image_size: side of the square input, pixels.
        crop_pct: image_size divided by the length to which the shorter side is resized.
        interpolation: "bilinear" or "bicubic", as Pillow computes it.
        mean, std: of the normalization, for pixel values in [0, 1].
    """

    image_size: int = 224
    crop_pct: float = 0.875
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        """Raises InputError if a value is invalid."""
        if self.image_size < 1:
            raise InputError("image_size must be at least 1")
        if not 0 < self.crop_pct <= 1:
            raise InputError("crop_pct must be above 0 and at most 1")
        if self.interpolation not in INTERPOLATIONS:
            raise InputError(f"interpolation must be one of {', '.join(INTERPOLATIONS)}")


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A network without weights.

    `network(**arguments, num_classes, in_features, dtype, rngs)` builds it.
    """

    network: Callable[..., nnx.Module]
    arguments: Mapping[str, Any]
    preprocessing: Preprocessing = Preprocessing()


def _resnet(
    block: type[BasicBlock] | type[Bottleneck], depths: tuple[int, ...], **arguments: Any
) -> Architecture:
    return Architecture(ResNet, {"block": block, "depths": depths, **arguments})


def _aognet(widths: tuple[int, ...], depths: tuple[int, ...], attentive: bool) -> Architecture:
    return Architecture(AOGNet, {"widths": widths, "depths": depths, "attentive": attentive})


_R34 = (BasicBlock, (3, 4, 6, 3))
_R50 = (Bottleneck, (3, 4, 6, 3))
_R101 = (Bottleneck, (3, 4, 23, 3))
_A12 = ((32, 128, 256, 512, 824), (2, 2, 2, 1))
_A40 = ((56, 224, 448, 896, 1400), (2, 2, 3, 1))

# The models of the two papers; tests/fixtures has golden outputs of each. `attentive` has the slots
# with AN in place of BN (models/resnet.py): "norm1" is the norm after a block's first convolution.
ARCHITECTURES = {
    "aognet_12m_bn": _aognet(*_A12, attentive=False),
    "aognet_12m_an": _aognet(*_A12, attentive=True),
    "aognet_40m_bn": _aognet(*_A40, attentive=False),
    "aognet_40m_an": _aognet(*_A40, attentive=True),
    "densenet_121_bn": Architecture(DenseNet, {"attentive": False}),
    "densenet_121_an": Architecture(DenseNet, {"attentive": True}),
    "mobilenetv2_bn": Architecture(MobileNetV2, {"attentive": False}),
    "mobilenetv2_an": Architecture(MobileNetV2, {"attentive": True}),
    "resnet_34_bn": _resnet(*_R34),
    "resnet_34_an_bn1": _resnet(*_R34, attentive=("norm1",)),
    "resnet_34_an_bn2": _resnet(*_R34, attentive=("norm2",)),
    "resnet_34_an_bn12": _resnet(*_R34, attentive=("norm1", "norm2")),
    "resnet_34_se_bn1": _resnet(*_R34, squeeze_excite={"norm1": 4}),
    "resnet_34_se_bn2": _resnet(*_R34, squeeze_excite={"norm2": 4}),
    "resnet_34_se_bn12": _resnet(*_R34, squeeze_excite={"norm1": 4, "norm2": 4}),
    "resnet_50_bn": _resnet(*_R50),
    "resnet_50_an_bn2": _resnet(*_R50, attentive=("norm2",)),
    "resnet_50_an_bn3": _resnet(*_R50, attentive=("norm3",)),
    "resnet_50_an_bn123": _resnet(*_R50, attentive=("norm1", "norm2", "norm3")),
    "resnet_50_an_all": _resnet(*_R50, attentive=("stem", "downsample", "norm1", "norm2", "norm3")),
    "resnet_50_se_bn2": _resnet(*_R50, squeeze_excite={"norm2": 4}),
    "resnet_50_se_bn3": _resnet(*_R50, squeeze_excite={"norm3": 16}),
    "resnet_50_se_bn123": _resnet(*_R50, squeeze_excite={"norm1": 4, "norm2": 4, "norm3": 16}),
    "resnet_101_bn": _resnet(*_R101),
    "resnet_101_an": _resnet(*_R101, attentive=("norm2",)),
    "resnetv1d_50_bn": _resnet(*_R50, stem="deep"),
    "resnetv1d_50_an": _resnet(*_R50, stem="deep", attentive=("norm2",)),
    "resnetv1d_101_bn": _resnet(*_R101, stem="deep"),
    "resnetv1d_101_an": _resnet(*_R101, stem="deep", attentive=("norm2",)),
}


def _resnet_20(**arguments: Any) -> Architecture:
    architecture = _resnet(
        BasicBlock,
        (3, 3, 3),
        planes=(16, 32, 64),
        stem="3x3",
        num_mixtures=(10, 10, 20),
        **arguments,
    )
    half = (0.5, 0.5, 0.5)
    preprocessing = Preprocessing(image_size=16, crop_pct=1.0, mean=half, std=half)
    return dataclasses.replace(architecture, preprocessing=preprocessing)


# Models that are not the papers'. The small ResNets are for images of 8 to 32 px (He et al., CVPR
# 2016, section 4.2); the demonstration uses them.
OTHER_ARCHITECTURES = {
    "resnet_20_bn": _resnet_20(),
    "resnet_20_an_bn1": _resnet_20(attentive=("norm1",)),
}


def list_models() -> list[str]:
    """Returns the sorted names of the papers' 29 architectures.

    `create_model` and `get_architecture` also accept the names in `OTHER_ARCHITECTURES`.
    """
    return sorted(ARCHITECTURES)


def get_architecture(name: str) -> Architecture:
    """Returns an entry of the zoo. For an unknown name, raises InputError with the nearest ones."""
    known = ARCHITECTURES | OTHER_ARCHITECTURES
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.0)
        raise InputError(
            f"unknown model {name!r}; the nearest names are {', '.join(nearest)} "
            "(an_jax.list_models() gives all)"
        )
    return known[name]


def create_model(
    name: str,
    *,
    num_classes: int = 1000,
    in_features: int = 3,
    dtype: DTypeLike = jnp.float32,
    rngs: nnx.Rngs | None = None,
) -> nnx.Module:
    """Returns a new model with the papers' random initialization, in training mode.

    Args:
        name: a name in `list_models()` or `OTHER_ARCHITECTURES`.
        num_classes: number of logits; 0: no classifier.
        in_features: channels of the images.
        dtype: compute dtype: float32, bfloat16, or float64 (under jax_enable_x64). Parameters,
            statistics, attention and logits are at least float32.
        rngs: source of the initialization; `nnx.Rngs(0)` if not given.

    Returns:
        A module that maps normalized images [N, H, W, in_features] to logits [N, num_classes], or
        without a classifier to pooled features [N, C]. Its `features(images)` returns the feature
        maps that its `feature_info` describes. Call its `eval()` for inference. Train AOGNets
        and MobileNetV2, which have dropout, with `functional.apply_train`, which takes the dropout
        keys.

    Raises:
        InputError: the name is unknown.
    """
    architecture = get_architecture(name)
    return architecture.network(
        **architecture.arguments,
        num_classes=num_classes,
        in_features=in_features,
        dtype=dtype,
        rngs=nnx.Rngs(0) if rngs is None else rngs,
    )


class ShapeOnlyRngs(nnx.Rngs):
    """Replaces nnx.Rngs under `jax.eval_shape`: 3 times as fast, without counters to trace."""

    def __init__(self) -> None:
        """Has no streams."""

    def params(self) -> jax.Array:
        """Returns the same key at each call."""
        return jax.random.key(0)


def abstract_model(
    name: str, *, num_classes: int = 1000, dtype: DTypeLike = jnp.float32
) -> nnx.Module:
    """Returns the model of `create_model` as shapes and dtypes, without computing anything."""
    return nnx.eval_shape(
        lambda: create_model(name, num_classes=num_classes, dtype=dtype, rngs=ShapeOnlyRngs())
    )
