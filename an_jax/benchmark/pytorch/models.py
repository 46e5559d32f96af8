"""The models in plain PyTorch (NCHW), to compare speed with.

They load the released state dicts. Their tables and defaults are those of the JAX models. Their
initialization is PyTorch's, because only speed and loaded weights matter here.
"""

import inspect
from collections.abc import Callable

from flax import nnx
from torch import nn

from an_jax import zoo
from an_jax.benchmark.pytorch.aognet import create_aognet
from an_jax.benchmark.pytorch.mobilenet_v2 import create_mobilenet_v2
from an_jax.benchmark.pytorch.resnet import create_resnet
from an_jax.errors import InputError
from an_jax.models import aognet, mobilenet_v2, resnet

COUNTERPARTS: dict[Callable[..., nnx.Module], Callable[..., nn.Module]] = {
    resnet.ResNet: create_resnet,
    mobilenet_v2.MobileNetV2: create_mobilenet_v2,
    aognet.AOGNet: create_aognet,
}


def create_torch_model(name: str, num_classes: int = 1000) -> nn.Module:
    """Creates the PyTorch counterpart of a model, in training mode.

    Args:
        name: a ResNet, MobileNetV2 or AOGNet of the zoo.
        num_classes: number of logits.

    Returns:
        A module that maps normalized images [N, 3, H, W] to logits [N, num_classes].

    Raises:
        InputError: unknown name, or a model without a counterpart.
    """
    check_counterpart(name)
    architecture = zoo.get_architecture(name)
    parameters = inspect.signature(architecture.network.__init__).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    arguments = {**defaults, **architecture.arguments, "num_classes": num_classes}
    del arguments["dtype"], arguments["in_features"]
    return COUNTERPARTS[architecture.network](**arguments)


def check_counterpart(name: str) -> None:
    """Raises InputError if a model has no PyTorch counterpart."""
    if zoo.get_architecture(name).network not in COUNTERPARTS:
        raise InputError(
            f"{name} has no PyTorch counterpart: only ResNets, MobileNetV2 and AOGNets have one"
        )
