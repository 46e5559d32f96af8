"""Reads and writes `.pth` files.

Files are untrusted: only tensors and plain containers are unpickled.
"""

import io
import os
import pickletools
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeGuard

import numpy as np
import torch
from etils import epath

from an_jax.errors import InputError, file_errors, one_line, with_advice
from an_jax.files import absolute, replacing

# Training scripts often store a best accuracy as a NumPy scalar. Reading plain numbers is safe.
_SCALAR: Any = np.float64(0).__reduce__()[0]
_SAFE_GLOBALS: list[Callable | tuple[Callable, str]] = [
    _SCALAR,
    (_SCALAR, "numpy.core.multiarray.scalar"),  # its name in NumPy 1
    np.dtype,
    *{type(np.dtype(code)) for code in "?bBhHiIlLqQefd"},
]
# What torch.save itself needs for tensors.
_HARMLESS = re.compile(
    r"collections\.OrderedDict|torch\._utils\._rebuild_\w+|torch\.\w+Storage|torch\.Size|"
    r"torch\.storage\.\w+Storage|torch\.device"
)
# Where training scripts put the plain weights and their exponential moving average.
_WRAPPERS = {"plain": ("state_dict", "model"), "ema": ("state_dict_ema", "model_ema")}
_PREFIXES = ("module.", "network.")


class StateDict(NamedTuple):
    """A state dict in a file.

    Attributes:
        tensors: key -> tensor, without wrapper and prefixes.
        description: what was found.
        unread_average: name of averaged weights that the file also holds, or "".
    """

    tensors: dict[str, torch.Tensor]
    description: str
    unread_average: str


def read_state_dict(
    path: str | os.PathLike, *, weights: str = "plain", trust: bool = False
) -> StateDict:
    """Reads the state dict in a `.pth` file.

    Args:
        path: the file.
        weights: "plain", or "ema" for the moving average that the file also holds.
        trust: whether to unpickle everything, which runs code that the file names.

    Raises:
        InputError: the file is no torch file, is damaged, would run code, or does not hold these
            weights.
    """
    path = absolute(path)
    content = _load(path, trust)
    entries = content if _is_mapping(content) else {}
    wrappers = {
        kind: next((name for name in names if _is_mapping(_state_dict_of(entries.get(name)))), "")
        for kind, names in _WRAPPERS.items()
    }
    wrapper, average = wrappers[weights], wrappers["ema"]
    if weights == "ema" and not average:
        raise InputError(f"{path} holds no averaged weights ({_list_wrappers('ema')})")
    if average and not wrapper:
        raise InputError(f"{path} holds only averaged weights ({average!r}): give --weights ema")
    state_dict = _state_dict_of(entries[wrapper] if wrapper else content)
    if not _is_mapping(state_dict) or not state_dict:
        raise InputError(f"{path} holds a {type(content).__name__}, not a state dict")
    others = [str(k) for k, v in state_dict.items() if not isinstance(v, torch.Tensor)]
    if others:
        raise InputError(
            f"{path} holds no state dict: its entries {', '.join(others[:8])} are not tensors "
            f"(expected a bare state dict or one under {_list_wrappers('plain')})"
        )
    # PyTorch's AveragedModel counts the models in its average.
    state_dict = {key: value for key, value in state_dict.items() if key != "n_averaged"}
    removed = ""
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in state_dict):
            state_dict = {key.removeprefix(prefix): value for key, value in state_dict.items()}
            removed += prefix
    description = f"{len(state_dict)} tensors"
    description += f" under {wrapper!r}" if wrapper else ", a bare state dict"
    description += f", prefix {removed!r} removed" if removed else ""
    return StateDict(state_dict, description, "" if wrapper == average else average)


def _list_wrappers(weights: str) -> str:
    return " or ".join(map(repr, _WRAPPERS[weights]))


def why_not_torch(path: epath.Path) -> str | None:
    """Says why a path is not a file that `write_state_dict` writes. Returns None if it is one."""
    if path.is_dir():
        return "is not a file"
    try:
        with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
            is_torch = any(name.endswith("/data.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        is_torch = False
    return None if is_torch else "is not a .pth file in the format of torch.save"


def write_state_dict(path: str | os.PathLike, tensors: dict[str, np.ndarray]) -> None:
    """Writes a bare state dict atomically.

    Raises:
        InputError: the file cannot be written.
    """
    state_dict = {key: torch.from_numpy(np.array(array)) for key, array in tensors.items()}
    with replacing(path) as temporary:
        torch.save(state_dict, temporary)


def _is_mapping(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


def _state_dict_of(content: object) -> object:
    """Returns a module's state dict, and anything else as it is."""
    return content.state_dict() if isinstance(content, torch.nn.Module) else content


def _load(path: epath.Path, trust: bool) -> object:
    if path.is_dir():
        raise InputError(f"{path} is a directory; to convert a checkpoint, add --to-torch")
    try:
        with path.open("rb") as file:
            head = file.read(9)
            _check_head(path, head)
            data = head + file.read()
    except file_errors() as error:
        reason = getattr(error, "strerror", None) or ""  # the message would repeat the path
        raise InputError(f"{path} cannot be read: {with_advice(error, reason)}") from error
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_SAFE_GLOBALS):
            warnings.simplefilter("ignore")  # the error messages below cover torch's warnings
            archive = zipfile.ZipFile(io.BytesIO(data)) if head[:2] == b"PK" else None
            if archive and archive.testzip():  # torch ignores the checksums
                raise RuntimeError("wrong checksum")
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=not trust)
    except Exception as error:  # torch raises five types for damaged files
        if trust:
            reason = f"cannot be read: {one_line(error)}"
            if isinstance(error, (ImportError, AttributeError)):
                reason += "; add the code that wrote it to PYTHONPATH"
        else:
            reason = _diagnose(data, str(error))
        raise InputError(f"{path} {reason}") from error


def _check_head(path: epath.Path, head: bytes) -> None:
    """Raises InputError if a file that begins with these 9 bytes is no torch file."""
    # The header of safetensors: its length in 8 bytes, then a JSON object.
    if head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().length:
        raise InputError(
            f"{path} is a safetensors file, which is not supported yet; write its tensors with "
            f"torch.save(safetensors.torch.load_file({path.name!r}), 'weights.pth')"
        )
    if not head.startswith((b"PK", b"\x80")):
        content = f"it begins with {head[:4]!r}" if head else "it is empty"
        raise InputError(f"{path} is not a torch file: {content}")


def _diagnose(data: bytes, message: str) -> str:
    """Explains why torch.load refused a file, without unpickling it.

    torch.serialization.get_unsafe_globals_in_checkpoint reads neither legacy nor plain pickles.
    """
    if "TorchScript" in message:
        return "is a TorchScript archive, not a state dict; save module.state_dict() instead"
    try:
        operations = list(_pickle_operations(data))
    except ValueError:
        operations = []
    refused = re.search(r"GLOBAL (\S+)", message)
    imports = [refused[1]] if refused else list(_stack_globals(operations))
    needed = next((name for name in imports if not _HARMLESS.fullmatch(name)), None)
    if needed:
        return (
            f"would run code when read: it needs {needed!r}, and only tensors and plain containers "
            "are read here. If you trust its author, give --trust, which runs that code"
        )
    if imports:
        return (
            "was saved with pickle_protocol=4 or higher, and without running code only files of "
            "protocol 2, torch.save's default, can be read. Save it again with the default, or "
            "give --trust if you trust its author"
        )
    return "is truncated, damaged, or not a torch file; copy or download it again"


def _stack_globals(operations: list[tuple[str, object]]) -> Iterator[str]:
    """Yields the imports of a pickle of protocol 4, which torch.load refuses unnamed."""
    pushed: list[object] = []
    memo: list[object] = []
    for opcode, argument in operations:
        if opcode == "PROTO":
            memo.clear()
        elif opcode == "MEMOIZE":
            memo.append(pushed[-1] if pushed else None)
        elif opcode in ("BINGET", "LONG_BINGET"):
            index = int(str(argument))
            pushed.append(memo[index] if index < len(memo) else None)
        elif opcode != "FRAME":
            if opcode == "STACK_GLOBAL":
                yield ".".join(map(str, pushed[-2:]))
            pushed.append(argument if isinstance(argument, str) else None)


def _pickle_operations(data: bytes) -> Iterator[tuple[str, object]]:
    """Yields the opcodes and arguments of a file's pickle. Raises ValueError if it is truncated."""
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
