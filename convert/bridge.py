"""Converts between files of PyTorch weights and checkpoints, exactly and atomically."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from an_jax import functional, zoo
from an_jax.checkpoint import ModelCard, restore_weights, save_checkpoint, why_foreign
from an_jax.errors import InputError
from an_jax.files import absolute, check_destination
from convert.names import current_names, describe_naming
from convert.recognize import recognize
from convert.torch_layout import COUNTER, TorchTensor, torch_layout
from convert.weights_file import read_state_dict, why_not_weights, write_state_dict

_FLOATS = ("float64", "float32", "float16", "bfloat16")


def from_torch(
    source: str | os.PathLike,
    destination: str | os.PathLike,
    *,
    model: str | None = None,
    weights: str = "plain",
    preprocessing: Mapping[str, Any] | None = None,
    published_name: str = "",
    origin: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    trust: bool = False,
    say: Callable[[str], object] = print,
) -> ModelCard:
    """Converts a `.pth` or safetensors file into a checkpoint.

    Args:
        source: the file.
        destination: the checkpoint directory to write.
        model: the architecture; None recognizes it from keys and shapes.
        weights: "plain", "ema" for the moving average that a file may also hold, or the name of an
            entry of the file.
        preprocessing: fields of `zoo.Preprocessing` that differ from the architecture's.
        published_name: begins with the architecture's name; it decides between architectures with
            the same keys and shapes.
        origin: further entries of the model card's `source`.
        overwrite: whether to replace an existing checkpoint.
        trust: whether to run code that the file names.
        say: called with each line of the report.

    Returns:
        The model card of the new checkpoint.

    Raises:
        InputError: the file is invalid, or the destination exists. Nothing is written.
    """
    check_destination(destination, overwrite=overwrite, why_foreign=why_foreign)
    tensors, description, unread_average = read_state_dict(source, weights=weights, trust=trust)
    names = current_names(tensors)
    num_renamed = sum(old != new for old, new in names.items())
    if num_renamed:
        description += f", {num_renamed} of them under {describe_naming(tensors)}"
    say(f"read        {source}: {description}")
    if unread_average:
        say(
            f"note        the file also holds averaged weights ({unread_average!r}); "
            "--weights ema takes them"
        )
    tensors = {names[key]: array for key, array in tensors.items()}
    shapes = {key: array.shape for key, array in tensors.items()}
    name, num_classes, layout = recognize(shapes, model, published_name)
    say(f"recognized  {name}{' (given)' if model else ''}, {num_classes} classes")
    params, batch_stats = _to_arrays(tensors, layout)
    say(
        f"checked     {len(params) + len(batch_stats)} tensors in place, none missing, none left "
        f"over, all finite; {functional.count(params) / 1e6:.3f} M parameters"
    )
    if num_rounded := sum(array.dtype == np.float64 for array in tensors.values()):
        say(f"note        {num_rounded} tensors are float64; they were rounded to float32")
    card = ModelCard(
        model=name,
        num_classes=num_classes,
        preprocessing=dataclasses.replace(
            zoo.get_architecture(name).preprocessing, **(preprocessing or {})
        ),
        source={
            "file": absolute(source).name,
            "weights": weights,
            **(origin or {}),
            COUNTER: _read_counters(tensors),
        },
    )
    save_checkpoint(destination, card, params, batch_stats, overwrite=overwrite)
    say(f"wrote       {destination} and read it back: equal bit for bit")
    return card


def to_torch(
    checkpoint: str | os.PathLike,
    destination: str | os.PathLike,
    *,
    overwrite: bool = False,
    say: Callable[[str], object] = print,
) -> None:
    """Converts a checkpoint into a state dict that the released PyTorch code loads strictly.

    Args:
        checkpoint: a checkpoint, or the working directory of a training run.
        destination: the file to write: safetensors if it ends in `.safetensors`, else `.pth`.
        overwrite: whether to replace an existing file.
        say: called with each line of the report.

    Raises:
        InputError: the checkpoint is missing or damaged, or the destination exists.
    """
    check_destination(destination, overwrite=overwrite, why_foreign=why_not_weights)
    card = ModelCard.read(checkpoint)
    split = functional.split(zoo.abstract_model(card.model, num_classes=card.num_classes))
    weights = restore_weights(checkpoint, split.params, split.batch_stats)
    arrays = weights["params"] | weights["batch_stats"]
    say(f"read        {checkpoint}: {card.model}, {card.num_classes} classes, {len(arrays)} arrays")
    counters = card.source.get(COUNTER, 0)
    tensors = {}
    for tensor in torch_layout(card.model, card.num_classes):
        if tensor.path is None:
            count = counters.get(tensor.key, 0) if isinstance(counters, dict) else counters
            tensors[tensor.key] = np.array(count, np.int64)
        else:
            tensors[tensor.key] = tensor.to_torch(np.asarray(arrays[tensor.path]))
    write_state_dict(destination, tensors)
    say(f"wrote       {destination}: a state dict of {len(tensors)} tensors")


def _to_arrays(
    tensors: Mapping[str, np.ndarray], layout: tuple[TorchTensor, ...]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns params and batch_stats, each path -> float32 array.

    Raises:
        InputError: some tensors are unusable. The message lists all of them.
    """
    params: dict[str, np.ndarray] = {}
    batch_stats: dict[str, np.ndarray] = {}
    defects = []
    for tensor in layout:
        if tensor.path is None:
            continue
        value = tensors[tensor.key]
        if value.dtype.name not in _FLOATS:
            defects.append(f"{tensor.key} is {value.dtype}, not {', '.join(_FLOATS)}")
            continue
        with np.errstate(over="ignore"):  # counted below
            array = value.astype(np.float32, copy=False)
        if num_bad := array.size - np.count_nonzero(np.isfinite(array)):
            defects.append(f"{tensor.key} has {num_bad} NaN or infinite values in float32")
        array = np.ascontiguousarray(tensor.from_torch(array))
        (params if tensor.is_param else batch_stats)[tensor.path] = array
    if defects:
        raise InputError("unusable tensors:\n  " + "\n  ".join(defects))
    return params, batch_stats


def _read_counters(tensors: Mapping[str, np.ndarray]) -> int | dict[str, int]:
    """Returns num_batches_tracked: one number if all norms agree, as they do after training.

    The models do not use it, but a round trip restores it. An average of weights may have averaged
    it too.
    """
    counters = {}
    for key, value in tensors.items():
        if key.endswith(COUNTER):
            count = value.item()
            if isinstance(count, complex) or not abs(count) < 2**63:
                raise InputError(f"unusable tensors: {key} is {count}, not a number of batches")
            counters[key] = round(count)
    distinct = set(counters.values())
    return counters if len(distinct) > 1 else next(iter(distinct), 0)
