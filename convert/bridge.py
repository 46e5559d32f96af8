"""Conversion in both directions; exact, complete, and leaving nothing behind when it fails."""

from pathlib import Path

import numpy as np
import torch

from an_jax import functional, zoo
from an_jax.checkpoint import WEIGHTS, ModelCard, restore_weights, save_checkpoint
from an_jax.errors import InputError
from an_jax.files import check_destination
from convert.aognet_v2 import current_names
from convert.recognise import Recognised, recognise
from convert.torch_file import read_state_dict, write_state_dict
from convert.torch_layout import COUNTER, torch_layout

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def from_torch(source, destination, *, model=None, overwrite=False, say=print) -> ModelCard:
    """Converts a `.pth` file into a checkpoint.

    Args:
        source: the `.pth` file.
        destination: directory of the checkpoint.
        model: architecture; recognised from keys and shapes when not given.
        overwrite: whether an existing destination is replaced.
        say: receives the lines of the report.

    Raises:
        InputError: any defect of the file, or an existing destination; nothing is written then.
    """
    check_destination(destination, overwrite=overwrite, holds=WEIGHTS)
    tensors, description = read_state_dict(source)
    names = current_names(tensors)
    num_renamed = sum(old != new for old, new in names.items())
    description += f", {num_renamed} of them under AOGNet-V2's names" if num_renamed else ""
    say(f"read        {source}: {description}")
    tensors = {names[key]: tensor for key, tensor in tensors.items()}
    found = recognise({key: tuple(tensor.shape) for key, tensor in tensors.items()}, model)
    given = " (given)" if model else ""
    say(f"recognised  {found.model}{given}, {found.num_classes} classes")
    arrays = _to_arrays(tensors, found)
    split = functional.split(zoo.abstract_model(found.model, num_classes=found.num_classes))
    params = {path: arrays[path] for path in split.params}
    batch_stats = {path: arrays[path] for path in split.batch_stats}
    say(
        f"checked     {len(arrays)} tensors in place, none missing, none left over, all finite; "
        f"{functional.count(params) / 1e6:.3f} M parameters"
    )
    card = ModelCard(
        model=found.model,
        num_classes=found.num_classes,
        preprocessing=zoo.get_architecture(found.model).preprocessing,
        source={"file": Path(source).name, COUNTER: _counters(tensors)},
    )
    save_checkpoint(destination, card, params, batch_stats, overwrite=overwrite)
    say(f"wrote       {destination} and read it back: equal bit for bit")
    return card


def to_torch(checkpoint, destination, *, overwrite=False, say=print) -> None:
    """Converts a checkpoint into a state dict that the released PyTorch code loads strictly.

    Raises:
        InputError: no (whole) checkpoint, or an existing destination.
    """
    check_destination(destination, overwrite=overwrite)
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
            tensors[tensor.key] = np.int64(count)
        else:
            tensors[tensor.key] = tensor.to_torch(np.asarray(arrays[tensor.path]))
    write_state_dict(destination, tensors)
    say(f"wrote       {destination}: a state dict of {len(tensors)} tensors")


def _to_arrays(tensors: dict[str, torch.Tensor], found: Recognised) -> dict[str, np.ndarray]:
    """Path -> float32 array in our layout. Raises InputError that lists every unusable tensor."""
    arrays, defects = {}, []
    for tensor in found.layout:
        if tensor.path is None:
            continue
        value = tensors[tensor.key]
        if value.dtype not in _DTYPES:
            defects.append(f"{tensor.key} is {value.dtype}, not float32, float16 or bfloat16")
        elif value.layout != torch.strided or value.is_meta:
            defects.append(f"{tensor.key} is no dense tensor")
        elif not torch.isfinite(value).all():
            bad = value.numel() - int(torch.isfinite(value).sum())
            defects.append(f"{tensor.key} has {bad} NaN or infinite values")
        else:
            arrays[tensor.path] = np.ascontiguousarray(
                tensor.from_torch(value.detach().float().numpy())
            )
    if defects:
        raise InputError("unusable tensors:\n  " + "\n  ".join(defects))
    return arrays


def _counters(tensors: dict[str, torch.Tensor]) -> int | dict[str, int]:
    """The batches that each norm has seen: one number where all agree, as they do after training.

    They serve nothing here, but a round trip gives them back.
    """
    counters = {key: value for key, value in tensors.items() if key.endswith(COUNTER)}
    odd = [key for key, value in counters.items() if value.dtype not in (torch.int64, torch.int32)]
    if odd:
        raise InputError(f"unusable tensors: {odd[0]} is {counters[odd[0]].dtype}, not int64")
    counters = {key: int(value) for key, value in counters.items()}
    distinct = set(counters.values())
    return counters if len(distinct) > 1 else next(iter(distinct), 0)
