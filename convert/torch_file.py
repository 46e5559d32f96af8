"""Reads and writes `.pth` files.

Files are untrusted: only tensors and plain containers are unpickled.
"""

import io
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from an_jax.errors import InputError, one_line
from convert.pickles import to_protocol_2
from convert.unwrap import MAX_DEPTH

# Training scripts often store a best accuracy as a NumPy scalar. Reading plain numbers is safe.
_SCALAR: Any = np.float64(0).__reduce__()[0]
_SAFE_GLOBALS: list[Callable | tuple[Callable, str]] = [
    _SCALAR,
    (_SCALAR, "numpy.core.multiarray.scalar"),  # its name in NumPy 1
    np.dtype,
    *{type(np.dtype(code)) for code in "?bBhHiIlLqQefd"},
]


def load(path: str | os.PathLike, data: bytes, *, trust: bool) -> object:
    """Returns the content of a file of torch.save. In dictionaries, tensors are NumPy arrays.

    Tensors that NumPy cannot represent, such as sparse ones, stay as they are.

    Args:
        path: named in error messages.
        data: the file.
        trust: whether to unpickle everything, which runs code that the file names.

    Raises:
        InputError: the file is no torch file, is damaged, or would run code.
    """
    if not data.startswith((b"PK", b"\x80")):
        content = f"it begins with {data[:4]!r}" if data else "it is empty"
        raise InputError(f"{path} is not a torch file: {content}")
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_SAFE_GLOBALS):
            warnings.simplefilter("ignore")  # the error messages below cover torch's warnings
            archive = zipfile.ZipFile(io.BytesIO(data)) if data.startswith(b"PK") else None
            if archive and archive.testzip():  # torch ignores the checksums
                raise RuntimeError("wrong checksum")
            file = io.BytesIO(data if trust else to_protocol_2(data))
            return _to_arrays(torch.load(file, map_location="cpu", weights_only=not trust))
    except Exception as error:  # torch raises five types for damaged files
        reason = _explain_trusted(error) if trust else _explain(str(error))
        raise InputError(f"{path} {reason}") from error


def save(tensors: Mapping[str, np.ndarray], path: str | os.PathLike) -> None:
    """Writes a bare state dict."""
    torch.save({key: torch.from_numpy(np.array(array)) for key, array in tensors.items()}, path)


def _to_arrays(value: Any, depth: int = MAX_DEPTH) -> Any:
    if isinstance(value, torch.nn.Module):
        value = value.state_dict()
    if isinstance(value, torch.Tensor):
        value = value.detach()
        if value.layout != torch.strided or value.is_meta or value.is_quantized:
            return value
        if value.dtype == torch.bfloat16:
            return value.view(torch.int16).numpy().view("bfloat16")
        try:
            return value.numpy()
        except TypeError:  # such as float8
            return value
    if isinstance(value, dict) and depth >= 0:
        return {key: _to_arrays(entry, depth - 1) for key, entry in value.items()}
    return value


def _explain_trusted(error: Exception) -> str:
    is_missing = isinstance(error, (ImportError, AttributeError))
    advice = "; add the code that wrote it to PYTHONPATH" if is_missing else ""
    return f"cannot be read: {one_line(error)}{advice}"


def _explain(message: str) -> str:
    """Explains why torch.load(weights_only=True) refused a file."""
    if "TorchScript" in message:
        return "is a TorchScript archive, not a state dict; save module.state_dict() instead"
    if needed := re.search(r"GLOBAL (\S+)", message):
        return (
            f"would run code when read: it needs {needed[1]!r}, and only tensors and plain "
            "containers are read here. If you trust its author, give --trust, which runs that code"
        )
    return "is truncated, damaged, or not a torch file; copy or download it again"
