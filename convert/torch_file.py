"""Reads and writes `.pth` files.

Files are untrusted: only tensors and plain containers are unpickled.
"""

import io
import pickletools
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch

from an_jax.errors import InputError
from an_jax.files import replacing

# Training scripts often store a best accuracy as a NumPy scalar. Reading plain numbers is safe.
_SCALAR: Any = np.float64(0).__reduce__()[0]
_SAFE_GLOBALS: list[Callable | tuple[Callable, str]] = [
    _SCALAR,
    (_SCALAR, "numpy.core.multiarray.scalar"),  # its name in NumPy 1
    np.dtype,
    *{type(np.dtype(code)) for code in "?bBhHiIlLqQefd"},
]
_WRAPPERS = ("state_dict", "model")
_PREFIXES = ("module.", "network.")


def read_state_dict(path: str | Path) -> tuple[dict[str, torch.Tensor], str]:
    """Reads the state dict in a `.pth` file.

    Returns:
        The state dict without wrapper and prefixes, and a description of what was found.

    Raises:
        InputError: the file is no torch file, is damaged, would run code, or holds no state dict.
    """
    path = Path(path)
    content = _load(path)
    state_dict, wrapper = content, ""
    if _is_mapping(content):
        wrapper = next((name for name in _WRAPPERS if _is_mapping(content.get(name))), "")
        state_dict = content[wrapper] if wrapper else content
    if not _is_mapping(state_dict) or not state_dict:
        raise InputError(f"{path} holds a {type(content).__name__}, not a state dict")
    others = [str(k) for k, v in state_dict.items() if not isinstance(v, torch.Tensor)]
    if others:
        raise InputError(
            f"{path} holds no state dict: its entries {', '.join(others[:8])} are not tensors "
            f"(expected a bare state dict or one under {' or '.join(map(repr, _WRAPPERS))})"
        )
    removed = ""
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in state_dict):
            state_dict = {key.removeprefix(prefix): value for key, value in state_dict.items()}
            removed += prefix
    description = f"{len(state_dict)} tensors"
    description += f" under {wrapper!r}" if wrapper else ", a bare state dict"
    description += f", prefix {removed!r} removed" if removed else ""
    return dict(state_dict), description


def why_not_torch(path: Path) -> str | None:
    """Says why a path is not a file that `write_state_dict` writes. Returns None if it is one."""
    if not path.is_file():
        return "is not a file"
    try:
        with zipfile.ZipFile(path) as archive:
            is_torch = any(name.endswith("/data.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        is_torch = False
    return None if is_torch else "is not a .pth file in the format of torch.save"


def write_state_dict(path: str | Path, tensors: dict[str, np.ndarray]) -> None:
    """Writes a bare state dict atomically.

    Raises:
        InputError: the file cannot be written.
    """
    state_dict = {key: torch.from_numpy(np.array(array)) for key, array in tensors.items()}
    with replacing(path) as temporary:
        torch.save(state_dict, temporary)


def _is_mapping(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


def _load(path: Path) -> object:
    if path.is_dir():
        raise InputError(f"{path} is a directory; to convert a checkpoint, add --to-torch")
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    is_zip = head[:2] == b"PK"
    if not is_zip and head[:1] != b"\x80":
        content = f"it begins with {head!r}" if head else "it is empty"
        raise InputError(f"{path} is not a torch file: {content}")
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_SAFE_GLOBALS):
            warnings.simplefilter("ignore")  # the error messages below cover torch's warnings
            if is_zip and zipfile.ZipFile(path).testzip():  # torch ignores the checksums
                raise RuntimeError("wrong checksum")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises five types for damaged files
        raise InputError(f"{path} {_diagnose(path, str(error))}") from error


def _diagnose(path: Path, message: str) -> str:
    """Explains why torch.load refused a file, without unpickling it.

    torch.serialization.get_unsafe_globals_in_checkpoint reads neither legacy nor plain pickles.
    """
    if "TorchScript" in message:
        return "is a TorchScript archive, not a state dict; save module.state_dict() instead"
    try:
        operations = list(_pickle_operations(path))
    except ValueError:
        operations = []
    refused = re.search(r"GLOBAL (\S+)", message)
    needed = refused[1] if refused else _first_stack_global(operations)
    if operations and needed:
        return (
            f"would run code when read: it needs {needed!r}, and only tensors and plain containers "
            "are read here. If you trust its author, keep only the weights: torch.save("
            f"torch.load({path.name!r}, weights_only=False)['state_dict'], 'weights.pth')"
        )
    return "is truncated, damaged, or not a torch file; copy or download it again"


def _first_stack_global(operations: list[tuple[str, object]]) -> str | None:
    """Returns the first import of a pickle of protocol 4, which torch.load refuses unnamed."""
    strings: list[str] = []
    for opcode, argument in operations:
        if opcode == "STACK_GLOBAL":
            return ".".join(strings[-2:])
        if isinstance(argument, str):
            strings.append(argument)
    return None


def _pickle_operations(path: Path) -> Iterator[tuple[str, object]]:
    """Yields the opcodes and arguments of a file's pickle. Raises ValueError if it is truncated."""
    data = path.read_bytes()
    if data[:2] == b"PK":
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
                data = archive.read(names[0]) if names else b""
        except zipfile.BadZipFile as error:
            raise ValueError(str(error)) from error
    stream = io.BytesIO(data)
    # A legacy torch file holds four pickles before the tensors. The last one is the state dict.
    while stream.tell() < len(data) and data[stream.tell()] == 0x80:
        for opcode, argument, _ in pickletools.genops(stream):
            yield opcode.name, argument
