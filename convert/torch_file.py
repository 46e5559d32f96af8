"""Reading and writing `.pth` files as untrusted input: only tensors and plain containers."""

import io
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from an_jax.errors import InputError
from an_jax.files import replacing

# Bookkeeping such as a best accuracy is often a NumPy scalar: plain numbers, safe to read.
_SCALAR = np.float64(0).__reduce__()[0]
_PLAIN_GLOBALS = [
    _SCALAR,
    (_SCALAR, "numpy.core.multiarray.scalar"),
    np.dtype,
    *{type(np.dtype(code)) for code in "?bBhHiIlLqQefd"},
]
_WRAPPERS = ("state_dict", "model")
_PREFIXES = ("module.", "network.")


def read_state_dict(path: str | Path) -> tuple[dict[str, torch.Tensor], str]:
    """The state dict in a `.pth` file, without wrapping and prefixes, and a line that describes it.

    Raises:
        InputError: not a torch file, a damaged one, one that would run code, or one that holds no
            state dict.
    """
    path = Path(path)
    content = _load(path)
    wrapper = next(
        (w for w in _WRAPPERS if _is_mapping(content) and _is_mapping(content.get(w))), ""
    )
    state_dict = content[wrapper] if wrapper else content
    if not _is_mapping(state_dict) or not state_dict:
        raise InputError(f"{path} holds a {type(content).__name__}, not a state dict")
    others = [str(k) for k, v in state_dict.items() if not isinstance(v, torch.Tensor)]
    if others:
        raise InputError(
            f"{path} holds no state dict: its entries {', '.join(others[:8])} are no tensors "
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


def write_state_dict(path: str | Path, tensors: dict[str, np.ndarray]) -> None:
    """Writes a bare state dict, whole or not at all. Raises InputError if it cannot be written."""
    state_dict = {key: torch.from_numpy(np.array(array)) for key, array in tensors.items()}
    with replacing(path) as temporary:
        torch.save(state_dict, temporary)


def _is_mapping(value) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


def _load(path: Path):
    if path.is_dir():
        raise InputError(f"{path} is a directory; a checkpoint is converted with --to-torch")
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except OSError as error:
        raise InputError(f"no file {path} that can be read: {error.strerror}") from error
    if head[:2] != b"PK" and head[:1] != b"\x80":
        kind = f"it begins with {head!r}" if head else "it is empty"
        raise InputError(f"{path} is not a torch file: {kind}")
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_PLAIN_GLOBALS):
            warnings.simplefilter("ignore")  # what torch warns of here, the errors below say
            if head[:2] == b"PK" and zipfile.ZipFile(path).testzip():  # torch ignores checksums
                raise RuntimeError("checksum")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises five types for damaged files
        raise InputError(f"{path} {_diagnosis(path, str(error))}") from error


def _diagnosis(path: Path, message: str) -> str:
    """What is wrong with a file that torch.load refused; reads its pickle without running it."""
    refused = re.search(r"GLOBAL (\S+)", message)
    needed = [refused[1]] if refused else _globals_of_protocol_4(path)
    if "TorchScript" in message:
        return "is a TorchScript archive, not a state dict; save module.state_dict() instead"
    if needed and _has_whole_pickle(path):
        return (
            f"would run code when read: it needs {needed[0]!r}, and only tensors and plain "
            "containers are read here. If you trust its author, keep only the weights: torch.save("
            f"torch.load({path.name!r}, weights_only=False)['state_dict'], 'weights.pth')"
        )
    return "is truncated, damaged, or not a torch file; copy or download it again"


def _has_whole_pickle(path: Path) -> bool:
    try:
        return bool(list(_operations(path)))
    except ValueError:
        return False


def _globals_of_protocol_4(path: Path) -> list[str]:
    """Names that a plain pickle imports in the way that torch.load does not know."""
    strings, names = [], []
    try:
        for opcode, argument in _operations(path):
            if opcode == "STACK_GLOBAL":
                names.append(".".join(strings[-2:]))
            elif isinstance(argument, str):
                strings.append(argument)
    except ValueError:
        return []
    return names


def _operations(path: Path) -> Iterator[tuple[str, object]]:
    """Opcodes and arguments of a file's pickle. Raises ValueError where it is cut short."""
    if path.read_bytes()[:2] == b"PK":
        try:
            with zipfile.ZipFile(path) as archive:
                names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
                data = archive.read(names[0]) if names else b""
        except zipfile.BadZipFile as error:
            raise ValueError(str(error)) from error
    else:
        data = path.read_bytes()
    stream = io.BytesIO(data)
    # A legacy torch file holds four pickles before the tensors, the state dict in the last.
    while stream.tell() < len(data) and data[stream.tell()] == 0x80:
        for opcode, argument, _ in pickletools.genops(stream):
            yield opcode.name, argument
