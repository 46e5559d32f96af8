"""Reads and writes files of weights: `.pth` files, which need PyTorch, and safetensors files."""

import io
import os
import zipfile
from collections.abc import Mapping
from types import ModuleType
from typing import NamedTuple

import numpy as np
import safetensors
from etils import epath
from safetensors.numpy import save_file

from an_jax.errors import InputError, file_errors, with_advice
from an_jax.files import absolute, replacing
from convert.unwrap import strip_prefix, unwrap

SAFETENSORS = ".safetensors"
# Types in a safetensors file -> NumPy's.
_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
}


class StateDict(NamedTuple):
    """A state dict in a file.

    Attributes:
        tensors: key -> array, without wrapper and prefix.
        description: number of tensors, wrapper and removed prefix.
        unread_average: name of averaged weights that the file also holds, or "".
    """

    tensors: dict[str, np.ndarray]
    description: str
    unread_average: str


def read_state_dict(
    path: str | os.PathLike, *, weights: str = "plain", trust: bool = False
) -> StateDict:
    """Reads the state dict in a `.pth` or safetensors file.

    Args:
        path: the file.
        weights: "plain", "ema" for the moving average that the file also holds, or the name of an
            entry.
        trust: whether to unpickle everything, which runs code that the file names.

    Raises:
        InputError: the file has neither format, is damaged, would run code, or does not hold these
            weights.
    """
    file = absolute(path)
    data = _read(file)
    if file.name.endswith(SAFETENSORS) or _is_safetensors(data):
        content: object = _load_safetensors(file, data)
    else:
        content = _torch_file().load(file, data, trust=trust)
    found = unwrap(file, content, weights)
    tensors, prefix = strip_prefix(found.tensors)
    description = f"{len(tensors)} tensors"
    description += f" under {found.wrapper!r}" if found.wrapper else ", a bare state dict"
    description += f", prefix {prefix!r} removed" if prefix else ""
    return StateDict(tensors, description, found.unread_average)


def write_state_dict(path: str | os.PathLike, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes a bare state dict atomically, as safetensors if the path ends so, else as `.pth`.

    Raises:
        InputError: the file cannot be written.
    """
    is_safetensors = absolute(path).name.endswith(SAFETENSORS)
    torch_file = None if is_safetensors else _torch_file()
    with replacing(path) as temporary:
        if torch_file:
            torch_file.save(tensors, temporary)
        else:
            arrays = {key: np.array(array, order="C") for key, array in tensors.items()}
            save_file(arrays, temporary, metadata={"format": "pt"})


def why_not_weights(path: epath.Path) -> str | None:
    """Says why a path is not a file that `write_state_dict` writes. Returns None if it is one."""
    if path.is_dir():
        return "is not a file"
    data = path.read_bytes()
    if path.name.endswith(SAFETENSORS):
        return None if _is_safetensors(data) else "is not a safetensors file"
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            is_torch = any(name.endswith("/data.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        is_torch = False
    return None if is_torch else "is not a .pth file in the format of torch.save"


def _torch_file() -> ModuleType:
    """Imports the module that needs PyTorch."""
    try:
        from convert import torch_file
    except ImportError as error:
        raise InputError(
            f"{error}: .pth files need PyTorch: pip install -e '.[convert]'"
        ) from error
    return torch_file


def _read(path: epath.Path) -> bytes:
    if path.is_dir():
        raise InputError(f"{path} is a directory; to convert a checkpoint, add --to-torch")
    try:
        return path.read_bytes()
    except file_errors() as error:
        reason = getattr(error, "strerror", None) or ""  # the message would repeat the path
        raise InputError(f"{path} cannot be read: {with_advice(error, reason)}") from error


def _is_safetensors(data: bytes) -> bool:
    """Returns whether data begins with the length of a header in 8 bytes, and a JSON object."""
    return data[8:9] == b"{" and int.from_bytes(data[:8], "little") < len(data)


def _load_safetensors(path: epath.Path, data: bytes) -> dict[str, np.ndarray]:
    try:
        entries = safetensors.deserialize(data)
    except safetensors.SafetensorError as error:
        raise InputError(
            f"{path} is truncated, damaged, or not a safetensors file ({error}); copy or download "
            "it again"
        ) from error
    unusable = [
        f"{key} is {entry['dtype']}" for key, entry in entries if entry["dtype"] not in _DTYPES
    ]
    if unusable:
        raise InputError(
            f"{path} has tensors of other types than {', '.join(_DTYPES)}: {'; '.join(unusable)}"
        )
    return {
        key: np.frombuffer(entry["data"], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
        for key, entry in entries
    }
