"""Converts between PyTorch `.pth` files and checkpoints, exactly and atomically."""

import os
from collections.abc import Callable

import numpy as np
import torch

from an_jax import functional, zoo
from an_jax.checkpoint import ModelCard, restore_weights, save_checkpoint, why_foreign
from an_jax.errors import InputError
from an_jax.files import absolute, check_destination
from convert.aognet_v2 import current_names
from convert.recognize import recognize
from convert.torch_file import read_state_dict, why_not_torch, write_state_dict
from convert.torch_layout import COUNTER, TorchTensor, torch_layout

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def from_torch(
    source: str | os.PathLike,
    destination: str | os.PathLike,
    *,
    model: str | None = None,
    weights: str = "plain",
    overwrite: bool = False,
    trust: bool = False,
    say: Callable[[str], object] = print,
) -> ModelCard:
    """Converts a `.pth` file into a checkpoint.

    Args:
        source: the `.pth` file.
        destination: the checkpoint directory to write.
        model: the architecture; None recognizes it from keys and shapes.
        weights: "plain", or "ema" for the moving average that a file may also hold.
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
        description += f", {num_renamed} of them under AOGNet-V2's names"
    say(f"read        {source}: {description}")
    if unread_average:
        say(
            f"note        the file also holds averaged weights ({unread_average!r}); "
            "--weights ema takes them"
        )
    tensors = {names[key]: tensor for key, tensor in tensors.items()}
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    name, num_classes, layout = recognize(shapes, model)
    say(f"recognized  {name}{' (given)' if model else ''}, {num_classes} classes")
    params, batch_stats = _to_arrays(tensors, layout)
    say(
        f"checked     {len(params) + len(batch_stats)} tensors in place, none missing, none left "
        f"over, all finite; {functional.count(params) / 1e6:.3f} M parameters"
    )
    card = ModelCard(
        model=name,
        num_classes=num_classes,
        preprocessing=zoo.get_architecture(name).preprocessing,
        source={
            "file": absolute(source).name,
            "weights": weights,
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
        destination: the `.pth` file to write.
        overwrite: whether to replace an existing file.
        say: called with each line of the report.

    Raises:
        InputError: the checkpoint is missing or damaged, or the destination exists.
    """
    check_destination(destination, overwrite=overwrite, why_foreign=why_not_torch)
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
    tensors: dict[str, torch.Tensor], layout: tuple[TorchTensor, ...]
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
        defect = _find_defect(value)
        if defect:
            defects.append(f"{tensor.key} {defect}")
            continue
        array = tensor.from_torch(value.detach().float().numpy())
        (params if tensor.is_param else batch_stats)[tensor.path] = np.ascontiguousarray(array)
    if defects:
        raise InputError("unusable tensors:\n  " + "\n  ".join(defects))
    return params, batch_stats


def _find_defect(value: torch.Tensor) -> str | None:
    if value.dtype not in _DTYPES:
        return f"is {value.dtype}, not float32, float16 or bfloat16"
    if value.layout != torch.strided or value.is_meta:
        return "is not a dense tensor"
    num_bad = value.numel() - int(torch.isfinite(value).sum())
    return f"has {num_bad} NaN or infinite values" if num_bad else None


def _read_counters(tensors: dict[str, torch.Tensor]) -> int | dict[str, int]:
    """Returns num_batches_tracked: one number if all norms agree, as they do after training.

    The models do not use it, but a round trip restores it.
    """
    counters = {}
    for key, value in tensors.items():
        if key.endswith(COUNTER):
            if value.dtype not in (torch.int64, torch.int32):
                raise InputError(f"unusable tensors: {key} is {value.dtype}, not int64")
            counters[key] = int(value)
    distinct = set(counters.values())
    return counters if len(distinct) > 1 else next(iter(distinct), 0)
