"""The parts of a model: parameters, multiply-accumulates, activations, and norms of each."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from flax import nnx

from an_jax import functional
from an_jax.nn import AttentiveNorm, BatchNorm, Conv, GroupNorm, SqueezeExcite
from an_jax.zoo import architectures

COUNTED_LAYERS = (Conv, nnx.Linear, BatchNorm, GroupNorm, AttentiveNorm, SqueezeExcite)


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
        norms: path -> "BN", "GN", or AN's number of mixture components.
        squeeze_excite: paths of the Squeeze-Excitation modules.
    """

    name: str
    output: tuple[int, ...] = ()
    params: int = 0
    macs: int = 0
    activations: int = 0
    norms: dict[str, int | str] = dataclasses.field(default_factory=dict)
    squeeze_excite: list[str] = dataclasses.field(default_factory=list)


def summarize(name: str, image_size: int | None = None, num_classes: int = 1000) -> list[Part]:
    """Returns the parts of a model in order, computed from shapes alone.

    Args:
        name: a name in the zoo.
        image_size: side of the image in pixels; by default the model's own.
        num_classes: number of logits.

    Raises:
        InputError: the name is unknown, or the image too small for the model.
    """
    preprocessing = architectures.get_architecture(name).preprocessing
    if image_size is not None:
        preprocessing = dataclasses.replace(preprocessing, image_size=image_size)
    size = preprocessing.image_size
    parts: dict[str, Part] = {}

    def run(image: jax.Array) -> list[jax.Array]:
        model = architectures.create_model(
            name, num_classes=num_classes, rngs=architectures.ShapeOnlyRngs()
        )
        model.eval()
        recorder = _Recorder(model, parts)
        outputs = recorder.run(image)
        for path, values in functional.split(model).params.items():
            recorder.part(path).params += values.size
        return outputs

    outputs = jax.eval_shape(run, jax.ShapeDtypeStruct((1, size, size, 3), "float32"))
    for part, output in zip(parts.values(), outputs, strict=True):
        part.output = output.shape[1:]
    return list(parts.values())


class _Recorder:
    """Runs a model and adds the cost of each layer to its part.

    Args:
        model: has `features`, which returns the outputs of the stem and of each stage.
        parts: name -> part, empty; filled in the order of the calls.
    """

    def __init__(self, model: Any, parts: dict[str, Part]):
        self.model, self.parts = model, parts
        self.paths = {id(m): ".".join(map(str, path)) for path, m in nnx.iter_modules(model)}
        self.outputs: list[jax.Array] = []

    def run(self, image: jax.Array) -> list[jax.Array]:
        """Returns the outputs of the stem, of each stage and of the model."""
        methods = [(layer, "__call__") for layer in COUNTED_LAYERS]
        with _observed([*methods, (type(self.model), "features")], self.record):
            logits = self.model(image)
        return [*self.outputs, logits]

    def record(self, module: Any, x: jax.Array, y: Any) -> None:
        """Adds a call of `features` or of a layer."""
        if module is self.model:
            self.outputs = y
        else:
            path = self.paths[id(module)]
            _add(self.part(path), path, module, x, y)

    def part(self, path: str) -> Part:
        """Returns the part of a layer's path; adds it if it is missing."""
        name = path.partition(".")[0]
        if not name.startswith("layer"):
            name = "head" if name in ("fc", "classifier") else "stem"
        return self.parts.setdefault(name, Part(name))


Record = Callable[[Any, jax.Array, Any], None]  # (module, input, output)


@contextlib.contextmanager
def _observed(methods: list[tuple[type[nnx.Module], str]], record: Record) -> Iterator[None]:
    """Calls `record` after each call of the methods.

    Replaces the methods of the classes, so that layers need no code for being counted.
    """
    originals = [(kind, name, getattr(kind, name)) for kind, name in methods]
    try:
        for kind, name, method in originals:
            setattr(kind, name, _observe(method, record))
        yield
    finally:
        for kind, name, method in originals:
            setattr(kind, name, method)


def _observe(method: Callable[[Any, jax.Array], Any], record: Record) -> Callable:
    def observed(module: Any, x: jax.Array) -> Any:
        y = method(module, x)
        record(module, x, y)
        return y

    return observed


def _add(part: Part, path: str, module: Any, x: jax.Array, y: jax.Array) -> None:
    """Adds the cost of a layer's call."""
    match module:
        case Conv() | nnx.Linear():
            part.macs += y.size * math.prod(module.kernel.shape[:-1])
            part.activations += y.size
        case SqueezeExcite():
            part.macs += x.size
            part.squeeze_excite.append(path)
        case BatchNorm() | GroupNorm():
            part.macs += 2 * x.size
            if ".attention." not in path:
                part.norms[path] = "BN" if isinstance(module, BatchNorm) else "GN"
        case AttentiveNorm():
            part.macs += 2 * x.size + 2 * module.weight.size
            part.norms[path] = module.weight.shape[0]
