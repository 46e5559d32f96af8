"""Recognizes a state dict's architecture by its keys and shapes."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from an_jax import zoo
from an_jax.errors import InputError
from convert.torch_layout import COUNTER, TorchTensor, torch_layout
from convert.unwrap import common_prefix

_CLASSIFIERS = [
    f"{name}.{kind}" for name in ("fc", "classifier", "classifier.1") for kind in ("weight", "bias")
]

# Tensors per state dict, counters (num_batches_tracked) excluded. Building a model's layout takes
# up to a second, so only the models with as many tensors as the file are built and compared.
NUM_TENSORS = {
    "aognet_12m_bn": 1605,
    "aognet_12m_an": 1725,
    "aognet_40m_bn": 1964,
    "aognet_40m_an": 2104,
    "densenet_121_bn": 606,
    "densenet_121_an": 896,
    "mobilenetv2_bn": 262,
    "mobilenetv2_an": 347,
    "resnet_34_bn": 182,
    "resnet_34_an_bn1": 262,
    "resnet_34_an_bn2": 262,
    "resnet_34_an_bn12": 342,
    "resnet_34_se_bn1": 214,
    "resnet_34_se_bn2": 214,
    "resnet_34_se_bn12": 246,
    "resnet_50_bn": 267,
    "resnet_50_an_bn2": 347,
    "resnet_50_an_bn3": 347,
    "resnet_50_an_bn123": 507,
    "resnet_50_an_all": 532,
    "resnet_50_se_bn2": 299,
    "resnet_50_se_bn3": 299,
    "resnet_50_se_bn123": 363,
    "resnet_101_bn": 522,
    "resnet_101_an": 687,
    "resnetv1d_50_bn": 277,
    "resnetv1d_50_an": 357,
    "resnetv1d_101_bn": 532,
    "resnetv1d_101_an": 697,
    "resnet_20_bn": 107,
    "resnet_20_an_bn1": 152,
}


class Recognized(NamedTuple):
    """A state dict's architecture, number of classes and layout."""

    model: str
    num_classes: int
    layout: tuple[TorchTensor, ...]


class Differences(NamedTuple):
    """The differences between a file's tensors and a model's, one description each."""

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


def recognize(
    shapes: Mapping[str, tuple[int, ...]], model: str | None = None, published_name: str = ""
) -> Recognized:
    """Finds the architecture whose state dict has exactly these keys and shapes.

    Args:
        shapes: key -> shape. Counters (num_batches_tracked) may be missing.
        model: the architecture, if known. No other is tried.
        published_name: decides between several that match, if it begins with the name of one.

    Raises:
        InputError: no architecture matches (the message lists all differences from the nearest), or
            several do.
    """
    if model is not None:
        zoo.get_architecture(model)
        candidates = [model]
    else:
        candidates = [*zoo.ARCHITECTURES, *zoo.OTHER_ARCHITECTURES]
    matches = _match(shapes, candidates)
    if len(matches) > 1:
        named = [name for name in matches if f"{published_name}_".startswith(f"{name}_")]
        matches = named or matches
    if len(matches) > 1:
        raise InputError(
            f"ambiguous: {' and '.join(matches)} have the same keys and shapes; "
            "choose one with --model"
        )
    if not matches:
        raise InputError(_explain(shapes, candidates))
    num_classes = _num_classes(shapes)
    return Recognized(matches[0], num_classes, torch_layout(matches[0], num_classes))


def _num_classes(shapes: Mapping[str, tuple[int, ...]]) -> int:
    num_classes = next((shapes[key][0] for key in _CLASSIFIERS if shapes.get(key)), 1000)
    if num_classes < 1:
        raise InputError("the classifier has 0 classes")
    return num_classes


def _match(shapes: Mapping[str, tuple[int, ...]], candidates: Sequence[str]) -> list[str]:
    """Returns the candidates that have exactly these keys and shapes."""
    size = sum(not key.endswith(COUNTER) for key in shapes)
    num_classes = _num_classes(shapes)
    return [
        name
        for name in candidates
        if NUM_TENSORS.get(name, size) == size and not any(_compare(shapes, name, num_classes))
    ]


def _explain(shapes: Mapping[str, tuple[int, ...]], candidates: Sequence[str]) -> str:
    """Describes how a state dict differs from the nearest candidate."""
    num_classes = _num_classes(shapes)
    if hint := _explain_prefix(shapes, candidates):
        return hint
    shares = {name: _share(shapes, name, num_classes) for name in candidates}
    nearest = max(candidates, key=shares.__getitem__)
    if len(candidates) > 1 and shares[nearest] < 0.5:
        return (
            f"unknown architecture: {shares[nearest]:.0%} of the tensors are those of the nearest "
            f"model, {nearest}; list the differences with --model {nearest} "
            f"(known models: {', '.join(candidates)})"
        )
    return f"the tensors do not fit {nearest}:{_compare(shapes, nearest, num_classes)}"


def _share(shapes: Mapping[str, tuple[int, ...]], model: str, num_classes: int) -> float:
    """Returns the share of all keys, counters excluded, that both have; half for another shape."""
    expected = {t.key: t.shape for t in torch_layout(model, num_classes) if t.path}
    keys = {key for key in shapes if not key.endswith(COUNTER)}
    common = expected.keys() & keys
    num_equal = sum(expected[key] == tuple(shapes[key]) for key in common)
    return (len(common) + num_equal) / 2 / len(expected.keys() | keys)


def _explain_prefix(shapes: Mapping[str, tuple[int, ...]], candidates: Sequence[str]) -> str:
    """Says with which prefix some keys are a candidate's. Returns "" if there is none."""
    for first in dict.fromkeys(key.partition(".")[0] for key in shapes):
        inside = [key for key in shapes if key.startswith(f"{first}.")]
        prefix = common_prefix(inside)
        stripped = {key.removeprefix(prefix): shapes[key] for key in inside}
        outside = {key: shape for key, shape in shapes.items() if key not in inside}
        for tensors in (stripped | outside, stripped):
            if matches := _match(tensors, candidates):
                is_partial = not outside.keys() <= tensors.keys()
                others = f" and without others such as {next(iter(outside))}," if is_partial else ""
                return (
                    f"{len(inside)} of {len(shapes)} keys begin with {prefix!r}; without it"
                    f"{others} the tensors fit {matches[0]}: save them under these names"
                )
    return ""


def _compare(shapes: Mapping[str, tuple[int, ...]], model: str, num_classes: int) -> Differences:
    expected = {tensor.key: tensor.shape for tensor in torch_layout(model, num_classes)}
    return Differences(
        [key for key in expected if key not in shapes and not key.endswith(COUNTER)],
        [key for key in shapes if key not in expected],
        [
            f"{key} is {tuple(shapes[key])}, not {shape}"
            for key, shape in expected.items()
            if key in shapes and tuple(shapes[key]) != shape
        ],
    )
