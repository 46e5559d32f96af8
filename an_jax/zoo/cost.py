"""The parts of a model: parameters, multiply-accumulates, activations, and norms of each."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import jax
from flax import nnx

from an_jax import functional
from an_jax.nn import AttentiveNorm, BatchNorm, Conv, SqueezeExcite
from an_jax.zoo import architectures

COUNTED_LAYERS = (Conv, nnx.Linear, BatchNorm, AttentiveNorm, SqueezeExcite)


@dataclasses.dataclass
class Part:
    """The stem, a stage or the head of a model.

    Attributes:
        name: "stem" (the layers before the first stage), "layer1", ..., "head".
        output: shape of its last layer's output for one image: (H, W, C), or (C,).
        params: number of trained values.
        macs: multiply-accumulates for one image, counted as in timm's benchmarks: those of
            convolutions and linear layers, two for each normalized value, one for each value that
            Squeeze-Excitation pools. AN's mixtures add 2 K C; its statistics are not counted.
        activations: number of output values of convolutions and linear layers for one image, as in
            timm.
        norms: path -> number of mixture components, or None for BN.
        squeeze_excite: paths of the Squeeze-Excitation modules.
    """

    name: str
    output: tuple[int, ...] = ()
    params: int = 0
    macs: int = 0
    activations: int = 0
    norms: dict[str, int | None] = dataclasses.field(default_factory=dict)
    squeeze_excite: list[str] = dataclasses.field(default_factory=list)


def summarize(name: str, image_size: int | None = None) -> list[Part]:
    """Returns the parts of a model in order, computed from shapes alone.

    Args:
        name: a name in the zoo.
        image_size: side of the image in pixels; by default the model's own.

    Raises:
        InputError: the name is unknown, or the image too small for the model.
    """
    preprocessing = architectures.get_architecture(name).preprocessing
    if image_size is not None:
        preprocessing = dataclasses.replace(preprocessing, image_size=image_size)
    size = preprocessing.image_size
    parts: dict[str, Part] = {}
    outputs: list[jax.Array] = []

    def run(image: jax.Array) -> None:
        model = architectures.create_model(name, rngs=architectures.ShapeOnlyRngs())
        model.eval()
        paths = {id(m): ".".join(map(str, path)) for path, m in nnx.iter_modules(model)}

        def record(module: Any, x: jax.Array, y: Any) -> None:
            if module is model:
                outputs.extend(y)  # of stem and stages
            else:
                path = paths[id(module)]
                _add(_part(parts, path), path, module, x, y)

        methods = [(layer, "__call__") for layer in COUNTED_LAYERS]
        with _record_calls([*methods, (type(model), "features")], record):
            outputs.append(model(image))
        for path, values in functional.split(model).params.items():
            _part(parts, path).params += values.size

    jax.eval_shape(run, jax.ShapeDtypeStruct((1, size, size, 3), "float32"))
    for part, output in zip(parts.values(), outputs, strict=True):
        part.output = output.shape[1:]
    return list(parts.values())


def _part(parts: dict[str, Part], path: str) -> Part:
    """Returns the part of a layer's path; adds it if it is missing."""
    name = path.partition(".")[0]
    if not name.startswith("layer"):
        name = "head" if name in ("fc", "classifier") else "stem"
    return parts.setdefault(name, Part(name))


@contextlib.contextmanager
def _record_calls(
    methods: list[tuple[type[nnx.Module], str]], record: Callable[[Any, jax.Array, Any], None]
) -> Iterator[None]:
    """Calls record(module, input, output) after each call of the methods.

    It patches the classes, so that layers need no code for being counted.
    """

    def recorded(method: Callable[[Any, jax.Array], Any]) -> Callable[[Any, jax.Array], Any]:
        def wrapper(module: Any, x: jax.Array) -> Any:
            y = method(module, x)
            record(module, x, y)
            return y

        return wrapper

    with contextlib.ExitStack() as stack:
        for kind, name in methods:
            stack.enter_context(mock.patch.object(kind, name, recorded(getattr(kind, name))))
        yield


def _add(part: Part, path: str, module: Any, x: jax.Array, y: jax.Array) -> None:
    """Adds the cost of a layer's call."""
    match module:
        case Conv() | nnx.Linear():
            part.macs += y.size * math.prod(module.kernel.shape[:-1])
            part.activations += y.size
        case SqueezeExcite():
            part.macs += x.size
            part.squeeze_excite.append(path)
        case BatchNorm():
            part.macs += 2 * x.size
            if ".attention." not in path:
                part.norms[path] = None
        case AttentiveNorm():
            part.macs += 2 * x.size + 2 * module.weight.size
            part.norms[path] = module.weight.shape[0]
