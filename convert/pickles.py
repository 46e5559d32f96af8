"""Rewrites the pickles in files of torch.save in protocol 2, without unpickling anything.

torch.load(weights_only=True) reads no other protocol.
"""

import io
import pickle
import pickletools
import struct
import zipfile
from typing import Any

_PROTOCOL_2 = b"\x80\x02"  # begins a pickle
_STRINGS = ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")
_BYTES = ("SHORT_BINBYTES", "BINBYTES", "BINBYTES8")
# A legacy file: magic number, version, platform, content and keys of the tensors, which follow.
_NUM_LEGACY_PICKLES = 5


def to_protocol_2(data: bytes) -> bytes:
    """Returns a zip or legacy file of torch.save with its pickles in protocol 2.

    Raises:
        ValueError, zipfile.BadZipFile: the file is damaged.
    """
    if data.startswith(b"PK"):
        return _rewrite_archive(data)
    if data.startswith(_PROTOCOL_2):
        return data
    stream = io.BytesIO(data)
    parts: list[bytes] = []
    while data.startswith(b"\x80", stream.tell()) and len(parts) < _NUM_LEGACY_PICKLES:
        parts.append(_rewrite(stream))
    return b"".join(parts) + stream.read()


def _rewrite_archive(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        pickles = {n: archive.read(n) for n in names if n.endswith("/data.pkl")}
        if all(content.startswith(_PROTOCOL_2) for content in pickles.values()):
            return data
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as new:
            for name in names:
                is_pickle = name in pickles
                content = _rewrite(io.BytesIO(pickles[name])) if is_pickle else archive.read(name)
                new.writestr(name, content)
        return buffer.getvalue()


def _rewrite(stream: io.BytesIO) -> bytes:
    """Returns the pickle at the stream's position in protocol 2 and moves behind it."""
    operations: list[tuple[Any, Any, Any]] = list(pickletools.genops(stream))
    ends = [*(start for *_, start in operations[1:]), stream.tell()]
    data = stream.getvalue()
    output: list[bytes | str] = []  # operations; a str is pushed
    memo: dict[int, bytes | str] = {}
    for (opcode, argument, start), end in zip(operations, ends, strict=True):
        if opcode.name == "PROTO":
            if argument > pickle.HIGHEST_PROTOCOL:
                raise ValueError(f"pickle protocol {argument}")
            output.append(_PROTOCOL_2)
        elif opcode.name in _STRINGS:
            output.append(argument)
        elif opcode.name in _BYTES:  # protocol 2 encodes a str
            output += [b"c_codecs\nencode\n", argument.decode("latin1"), "latin1", b"\x86R"]
        elif opcode.name in ("MEMOIZE", "BINPUT", "LONG_BINPUT"):
            index = len(memo) if argument is None else argument
            memo[index] = output[-1] if output else b""
            if not isinstance(memo[index], str):
                output.append(b"r" + struct.pack("<I", index))
        elif opcode.name in ("BINGET", "LONG_BINGET"):
            value = memo.get(argument)
            output.append(value if isinstance(value, str) else b"j" + struct.pack("<I", argument))
        elif opcode.name == "STACK_GLOBAL":
            module, name = output[-2:]
            if not (isinstance(module, str) and isinstance(name, str)):
                raise ValueError("STACK_GLOBAL without names")
            output[-2:] = [f"c{module}\n{name}\n".encode()]
        elif opcode.name == "FRAME":
            if end + argument > stream.tell():
                raise ValueError("a frame extends beyond its pickle")
        else:
            output.append(data[start:end])
    return b"".join(_push(item) if isinstance(item, str) else item for item in output)


def _push(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(encoded)) + encoded
