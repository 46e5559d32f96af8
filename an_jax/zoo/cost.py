"""What each part of a model costs: parameters, multiply-accumulates, activations; and its norms."""

import contextlib
import dataclasses
import math
from unittest import mock

import jax
from flax import nnx

from an_jax import functional
from an_jax.nn import AttentiveNorm, BatchNorm, Conv, SqueezeExcite
from an_jax.zoo import architectures


@dataclasses.dataclass
class Part:
    """The stem, a stage or the head of a model.

    Attributes:
        name: "stem" (all before the first stage), "layer1", ..., "head".
        output: shape of its last layer's output for one image: (H, W, C), or (C,).
        params: number of trained values.
        macs: multiply-accumulates for one image, counted as timm's benchmarks do: those of
            convolutions and linear layers, two for each normalized value, one for each value that
            Squeeze-Excitation pools. AN's mixtures add 2 K C; its statistics are not counted.
        activations: values that convolutions and linear layers put out for one image, as in timm.
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
    """The parts of a model, in order; measured on shapes alone.

    Args:
        name: a name of the zoo.
        image_size: side of the image, pixels; by default the model's own.

    Raises:
        InputError: unknown name, or an image too small for the model.
    """
    preprocessing = architectures.get_architecture(name).preprocessing
    if image_size is not None:
        preprocessing = dataclasses.replace(preprocessing, image_size=image_size)
    size = preprocessing.image_size
    parts: dict[str, Part] = {}

    def part(path) -> Part:
        first = path.partition(".")[0]
        if not first.startswith("layer"):
            first = "head" if first in ("fc", "classifier") else "stem"
        return parts.setdefault(first, Part(first))

    def run(image):
        model = architectures.create_model(name, rngs=architectures.ShapeOnlyRngs())
        model.eval()
        paths = {id(m): ".".join(map(str, path)) for path, m in nnx.iter_modules(model)}

        def record(module, x, y):
            path = paths[id(module)]
            _add(part(path), path, module, x, y)

        with _calls(record):
            logits = model(image)
        for path, values in functional.split(model).params.items():
            part(path).params += values.size
        for one, output in zip(parts.values(), [*model.features(image), logits], strict=True):
            one.output = output.shape[1:]

    jax.eval_shape(run, jax.ShapeDtypeStruct((1, size, size, 3), "float32"))
    return list(parts.values())


@contextlib.contextmanager
def _calls(record):
    """Within it, `record(module, input, output)` follows each call of a counted layer.

    Patched from outside, so that no layer need know that it may be counted.
    """

    def recorded(call):
        def wrapper(module, x):
            y = call(module, x)
            record(module, x, y)
            return y

        return wrapper

    with contextlib.ExitStack() as stack:
        for kind in (Conv, nnx.Linear, BatchNorm, AttentiveNorm, SqueezeExcite):
            stack.enter_context(mock.patch.object(kind, "__call__", recorded(kind.__call__)))
        yield


def _add(part: Part, path: str, module: nnx.Module, x: jax.Array, y: jax.Array) -> None:
    """Counts one call of a layer."""
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
