"""Which model of the zoo a state dict is of, told from its keys and shapes alone."""

from collections.abc import Mapping
from typing import NamedTuple

from an_jax import zoo
from an_jax.errors import InputError
from convert.torch_layout import COUNTER, TorchTensor, torch_layout

_CLASSIFIERS = [
    f"{name}.{kind}" for name in ("fc", "classifier", "classifier.1") for kind in ("weight", "bias")
]


class Recognised(NamedTuple):
    """A state dict's model, its number of classes and its layout."""

    model: str
    num_classes: int
    layout: tuple[TorchTensor, ...]


class Differences(NamedTuple):
    """How the tensors of a file differ from those of a model, a line each."""

    missing: list[str]
    unexpected: list[str]
    wrong_shape: list[str]

    def __str__(self) -> str:
        kinds = ("missing", "unexpected", "wrong shape")
        return "".join(
            f"\n  {kind} ({len(lines)}): " + "; ".join(lines)
            for kind, lines in zip(kinds, self, strict=True)
            if lines
        )


def recognise(shapes: Mapping[str, tuple[int, ...]], model: str | None = None) -> Recognised:
    """Finds the one model whose state dict has exactly these keys and shapes.

    Args:
        shapes: key -> shape; counters (num_batches_tracked) may be absent.
        model: the architecture, where it is known; then only this one is considered.

    Raises:
        InputError: none fits (all differences to the nearest are listed), or several do.
    """
    num_classes = next((shapes[key][0] for key in _CLASSIFIERS if shapes.get(key)), 1000)
    if num_classes < 1:
        raise InputError("the head has no classes")
    if model is not None:
        zoo.get_architecture(model)
    candidates = [model] if model else [*zoo.ARCHITECTURES, *zoo.SMALL_ARCHITECTURES]
    layouts = {name: torch_layout(name, num_classes) for name in candidates}
    differences = {name: _compare(shapes, layout) for name, layout in layouts.items()}
    fitting = [name for name in candidates if not any(differences[name])]
    if len(fitting) == 1:
        return Recognised(fitting[0], num_classes, layouts[fitting[0]])
    if fitting:
        raise InputError(
            f"ambiguous: {' and '.join(fitting)} have the same keys and shapes; "
            f"say which it is with --model"
        )
    nearest = min(candidates, key=lambda name: sum(map(len, differences[name])))
    count = sum(map(len, differences[nearest]))
    if not model and count > len(shapes) / 2:
        raise InputError(
            f"unknown architecture: of {len(shapes)} tensors the nearest model, {nearest}, "
            f"differs in {count}; give --model to see how (known: {', '.join(candidates)})"
        )
    raise InputError(f"the tensors do not fit {nearest}:{differences[nearest]}")


def _compare(shapes, layout) -> Differences:
    expected = {tensor.key: tensor.shape for tensor in layout}
    return Differences(
        [key for key in expected if key not in shapes and not key.endswith(COUNTER)],
        [key for key in shapes if key not in expected],
        [
            f"{key} is {tuple(shapes[key])}, not {shape}"
            for key, shape in expected.items()
            if key in shapes and tuple(shapes[key]) != shape
        ],
    )
