"""Maps a model's arrays to the keys and layouts of the released PyTorch state dicts.

Module attributes carry the released names wherever possible. A walk over the module tree, with one
table for leaves and one function for children, therefore yields the whole state dict in order.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np
from flax import nnx

from an_jax import zoo
from an_jax.models.aognet import AOGBlock, AOGNet
from an_jax.models.densenet import DenseNet
from an_jax.nn import AttentiveNorm, BatchNorm, Conv, GroupNorm, SqueezeExcite

COUNTER = "num_batches_tracked"
Transform = Callable[[np.ndarray], np.ndarray]

# Type of module -> attribute -> name in the state dict.
_LEAVES: dict[type[nnx.Module], dict[str, str]] = {
    Conv: {"kernel": "weight"},
    nnx.Linear: {"kernel": "weight", "bias": "bias"},
    BatchNorm: {
        "scale": "weight",
        "bias": "bias",
        "mean": "running_mean",
        "var": "running_var",
    },
    GroupNorm: {"scale": "weight", "bias": "bias"},
    AttentiveNorm: {"weight": "weight_", "bias": "bias_"},
}


def _identity(array: np.ndarray) -> np.ndarray:
    return array


def _hwio_to_oihw(kernel: np.ndarray) -> np.ndarray:
    return kernel.transpose(3, 2, 0, 1)


def _oihw_to_hwio(weight: np.ndarray) -> np.ndarray:
    return weight.transpose(2, 3, 1, 0)


def _linear_to_1x1(kernel: np.ndarray) -> np.ndarray:
    return kernel.T[:, :, None, None]


def _1x1_to_linear(weight: np.ndarray) -> np.ndarray:
    return weight[:, :, 0, 0].T


@dataclasses.dataclass(frozen=True)
class TorchTensor:
    """One tensor of a state dict.

    Attributes:
        key: name in the state dict.
        shape: shape in the state dict.
        path: dotted path of the model's array, or None for num_batches_tracked, which the model
            does not have.
        is_param: whether the array is trained, not a running statistic.
        to_torch, from_torch: convert a NumPy array between the two layouts.
    """

    key: str
    shape: tuple[int, ...]
    path: str | None
    is_param: bool = False
    to_torch: Transform = _identity
    from_torch: Transform = _identity


@functools.cache
def torch_layout(model: str, num_classes: int) -> tuple[TorchTensor, ...]:
    """Returns the tensors of a model's state dict in the released order."""
    layout: list[TorchTensor] = []

    def build() -> None:
        # Only a newly constructed module has its attributes in the order of their definition.
        module = zoo.create_model(model, num_classes=num_classes, rngs=zoo.ShapeOnlyRngs())
        layout.extend(_tensors(module, "", ""))

    jax.eval_shape(build)
    return tuple(layout)


def _tensors(module: nnx.Module, key: str, path: str) -> Iterator[TorchTensor]:
    for name, value in _attributes(module):
        if isinstance(value, nnx.Variable):
            yield _leaf(module, name, value, key, path)
        elif isinstance(value, nnx.Module):
            child_key = _join(key, _child_key(module, name, value, key))
            yield from _tensors(value, child_key, f"{path}{name}.")
    if isinstance(module, BatchNorm):
        yield TorchTensor(_join(key, COUNTER), (), None)


def _attributes(module: nnx.Module) -> Iterable[tuple[str, object]]:
    if isinstance(module, nnx.List):
        return ((str(i), child) for i, child in enumerate(module))
    return vars(module).items()


def _leaf(
    module: nnx.Module, name: str, variable: nnx.Variable, key: str, path: str
) -> TorchTensor:
    torch_name = next(names[name] for kind, names in _LEAVES.items() if isinstance(module, kind))
    shape = variable.get_value().shape
    to_torch, from_torch = _transforms(key, name, len(shape))
    return TorchTensor(
        key=_join(key, torch_name),
        shape=to_torch(np.broadcast_to(np.float32(0), shape)).shape,
        path=f"{path}{name}",
        is_param=isinstance(variable, nnx.Param),
        to_torch=to_torch,
        from_torch=from_torch,
    )


def _transforms(key: str, name: str, ndim: int) -> tuple[Transform, Transform]:
    if name != "kernel":
        return _identity, _identity
    if key.endswith("attention.0"):  # a 1x1 convolution there, a linear layer here
        return _linear_to_1x1, _1x1_to_linear
    if ndim == 2:
        return np.transpose, np.transpose
    return _hwio_to_oihw, _oihw_to_hwio


def _child_key(module: nnx.Module, name: str, child: nnx.Module, key: str) -> str:
    """Returns the released name of a child module, relative to its parent's `key`."""
    if name == "stem" and isinstance(module, (AOGNet, DenseNet)):
        return "stem.conv1"
    if name.startswith("node") and isinstance(module, AOGBlock):
        stage, index = re.findall(r"\d+", key)  # of layer<stage>.<index>
        return f"stage_{stage}_block_{int(index) // 2 + 1}_{name}_op"
    if isinstance(module, AttentiveNorm):
        return {"backbone": "", "attention": "attn_weights.attention"}[name]
    if name.startswith("norm"):
        return name.replace("norm", "AttnBN2d" if isinstance(child, AttentiveNorm) else "bn")
    if isinstance(child, SqueezeExcite):
        is_only = sum(isinstance(m, SqueezeExcite) for m in vars(module).values()) == 1
        return "se" if is_only else name
    return name


def _join(key: str, name: str) -> str:
    return ".".join(part for part in (key, name) if part)
