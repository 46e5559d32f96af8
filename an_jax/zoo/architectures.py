"""What exists: architecture name -> constructor, arguments, and the preprocessing it expects."""

import dataclasses
import difflib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from an_jax.errors import InputError
from an_jax.models.aognet import AOGNet
from an_jax.models.densenet import DenseNet
from an_jax.models.mobilenet_v2 import MobileNetV2
from an_jax.models.resnet import BasicBlock, Bottleneck, ResNet

INTERPOLATIONS = ("bilinear", "bicubic")


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a model's input.

    Attributes:
        image_size: side of the square input, pixels.
        crop_pct: image_size over the length to which the shorter side is resized.
        interpolation: "bilinear" or "bicubic", as Pillow computes it.
        mean, std: of the normalization, in units of [0, 1] pixel values.
    """

    image_size: int = 224
    crop_pct: float = 0.875
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self):
        """Raises InputError on a value that makes no sense."""
        if self.image_size < 1:
            raise InputError("image_size must be at least 1")
        if not 0 < self.crop_pct <= 1:
            raise InputError("crop_pct must be above 0 and at most 1")
        if self.interpolation not in INTERPOLATIONS:
            raise InputError(f"interpolation must be one of {', '.join(INTERPOLATIONS)}")


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A network without weights: `network(**arguments, num_classes, dtype, rngs)` builds it."""

    network: type[nnx.Module]
    arguments: Mapping
    preprocessing: Preprocessing = Preprocessing()


def _resnet(block, depths, preprocessing=Preprocessing(), **arguments) -> Architecture:
    arguments = {"block": block, "depths": depths, **arguments}
    return Architecture(ResNet, arguments, preprocessing)


_R34, _R50, _R101 = (
    (BasicBlock, (3, 4, 6, 3)),
    (Bottleneck, (3, 4, 6, 3)),
    (Bottleneck, (3, 4, 23, 3)),
)


def _aognet(widths, depths, attentive) -> Architecture:
    return Architecture(AOGNet, {"widths": widths, "depths": depths, "attentive": attentive})


_A12, _A40 = (
    ((32, 128, 256, 512, 824), (2, 2, 2, 1)),
    ((56, 224, 448, 896, 1400), (2, 2, 3, 1)),
)

# The models of the two papers; slots are explained in models/resnet.py.
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

_R20 = {
    "block": BasicBlock,
    "depths": (3, 3, 3),
    "planes": (16, 32, 64),
    "stem": "3x3",
    "preprocessing": Preprocessing(
        image_size=16, crop_pct=1.0, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
    ),
}

# For images of some 8 to 32 px (He et al., CVPR 2016, section 4.2), as in the demonstration.
SMALL_ARCHITECTURES = {
    "resnet_20_bn": _resnet(**_R20),
    "resnet_20_an_bn1": _resnet(**_R20, attentive=("norm1",), num_mixtures=(10, 10, 20)),
}


def list_models() -> list[str]:
    """Names of the papers' architectures, sorted. `create_model` knows them all, and the small
    ones of `SMALL_ARCHITECTURES` besides."""
    return sorted(ARCHITECTURES)


def get_architecture(name: str) -> Architecture:
    """The entry `name` of the zoo. Raises InputError that names the nearest ones."""
    known = ARCHITECTURES | SMALL_ARCHITECTURES
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.0)
        raise InputError(
            f"unknown model {name!r}; the nearest names are {', '.join(nearest)} "
            "(an_jax.list_models() gives all)"
        )
    return known[name]


def create_model(
    name: str, *, num_classes: int = 1000, dtype=jnp.float32, rngs: nnx.Rngs | None = None
) -> nnx.Module:
    """A new model with the papers' random initialization, in training mode (see model.eval()).

    Args:
        name: one of `list_models()`, or of `SMALL_ARCHITECTURES`.
        num_classes: number of logits.
        dtype: compute dtype: float32, bfloat16, or float64 (under jax_enable_x64). Parameters,
            statistics, attention and logits are in at least float32.
        rngs: source of the initialization; `nnx.Rngs(0)` if not given.

    Returns:
        A module that maps normalized images [N, H, W, 3] to logits [N, num_classes]. AOGNets and
        MobileNetV2 have dropout: train them by `functional.apply_train`, which takes its key.

    Raises:
        InputError: unknown name.
    """
    architecture = get_architecture(name)

    return architecture.network(
        **architecture.arguments,
        num_classes=num_classes,
        dtype=dtype,
        rngs=nnx.Rngs(0) if rngs is None else rngs,
    )


class ShapeOnlyRngs:
    """Stands for nnx.Rngs under `jax.eval_shape`: no counters to trace, three times as fast."""

    def params(self):
        return jax.random.key(0)


def abstract_model(name: str, *, num_classes: int = 1000, dtype=jnp.float32) -> nnx.Module:
    """Like `create_model`, but of shapes and dtypes only: no memory, no computation."""
    return nnx.eval_shape(
        lambda: create_model(name, num_classes=num_classes, dtype=dtype, rngs=ShapeOnlyRngs())
    )
