"""How a model's arrays are named and laid out in the released PyTorch state dicts.

Modules mirror the released names, so a walk over the module tree with two small tables, one of
leaves and one of children, gives the whole state dict, in its order.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator

import jax
import numpy as np
from flax import nnx

from an_jax import zoo
from an_jax.models.aognet import AOGBlock, AOGNet
from an_jax.models.densenet import DenseNet
from an_jax.nn import AttentiveNorm, BatchNorm, Conv, SqueezeExcite

COUNTER = "num_batches_tracked"


def _same(array):
    return array


def _hwio_to_oihw(kernel):
    return kernel.transpose(3, 2, 0, 1)


def _oihw_to_hwio(weight):
    return weight.transpose(2, 3, 1, 0)


def _linear_to_1x1(kernel):
    return kernel.T[:, :, None, None]


def _1x1_to_linear(weight):
    return weight[:, :, 0, 0].T


_KERNEL_FORMS = {
    4: (_hwio_to_oihw, _oihw_to_hwio),
    2: (np.transpose, np.transpose),
}


@dataclasses.dataclass(frozen=True)
class TorchTensor:
    """One tensor of a state dict.

    Attributes:
        key: its name there.
        shape: its shape there.
        path: dotted path of the model's array; None for num_batches_tracked, which has none.
        to_torch, from_torch: change of layout of a NumPy array.
    """

    key: str
    shape: tuple[int, ...]
    path: str | None
    to_torch: Callable = _same
    from_torch: Callable = _same


@functools.cache
def torch_layout(model: str, num_classes: int) -> tuple[TorchTensor, ...]:
    """The state dict of a model of the zoo, in the released order."""
    layout = []

    def build():  # only a module fresh from its constructor has its members in their order
        module = zoo.create_model(model, num_classes=num_classes, rngs=zoo.ShapeOnlyRngs())
        layout.extend(_tensors(module, "", ""))

    jax.eval_shape(build)
    return tuple(layout)


def _tensors(module: nnx.Module, key: str, path: str) -> Iterator[TorchTensor]:
    for name, value in _members(module):
        if isinstance(value, nnx.Variable):
            yield _leaf(module, name, value.get_value(), key, path)
        elif isinstance(value, nnx.Module):
            child_key = _join(key, _child(module, name, value, key))
            yield from _tensors(value, child_key, f"{path}{name}.")
    if isinstance(module, BatchNorm):
        yield TorchTensor(_join(key, COUNTER), (), None)


def _members(module):
    if isinstance(module, nnx.List):
        return enumerate(module)
    return vars(module).items()


def _leaf(module, name, array, key, path) -> TorchTensor:
    suffixes = {
        Conv: {"kernel": "weight"},
        nnx.Linear: {"kernel": "weight", "bias": "bias"},
        BatchNorm: {
            "scale": "weight",
            "bias": "bias",
            "mean": "running_mean",
            "var": "running_var",
        },
        AttentiveNorm: {"weight": "weight_", "bias": "bias_"},
    }
    suffix = next(table[name] for kind, table in suffixes.items() if isinstance(module, kind))
    to_torch, from_torch = _KERNEL_FORMS[array.ndim] if name == "kernel" else (_same, _same)
    if name == "kernel" and key.endswith("attention.0"):  # AN's projection is a 1x1 convolution
        to_torch, from_torch = _linear_to_1x1, _1x1_to_linear
    shape = to_torch(np.broadcast_to(np.float32(0), array.shape)).shape
    return TorchTensor(_join(key, suffix), shape, f"{path}{name}", to_torch, from_torch)


def _child(module, name, child, key) -> str:
    """What the released code calls the member `name` of a module that is at `key`."""
    name = str(name)
    if name == "stem" and isinstance(module, (AOGNet, DenseNet)):
        return "stem.conv1"
    if name.startswith("node") and isinstance(module, AOGBlock):
        stage, index = re.fullmatch(r"layer(\d+)\.(\d+)", key).groups()
        return f"stage_{stage}_block_{int(index) // 2 + 1}_{name}_op"
    if isinstance(module, AttentiveNorm):
        return {"backbone": "", "attention": "attn_weights.attention"}[name]
    if name.startswith("norm"):
        return name.replace("norm", "AttnBN2d" if isinstance(child, AttentiveNorm) else "bn")
    if isinstance(child, SqueezeExcite):
        alone = sum(isinstance(m, SqueezeExcite) for m in vars(module).values()) == 1
        return "se" if alone else name
    return name


def _join(key: str, name: str) -> str:
    return ".".join(part for part in (key, name) if part)
