"""Counts the bytes that a compiled TPU program moves to and from HBM, the chip's main memory."""

import math
import re
from typing import NamedTuple

_INSTRUCTION = re.compile(r"^ +(?:ROOT )?%?(\S+) = (.*?) ([a-z][\w\-]*)\((.*?)\)(.*)$")
_ARRAY = re.compile(r"\b(?:pred|[a-z]+(\d+))\w*\[([\d,]*)\](?:\{([^}]*)\})?")
# Memory spaces of VMEM and semaphores. HBM is S(0), which is not printed.
_ON_CHIP = re.compile(r"S\([1-9]\)")
_MOVE_NOTHING = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast"}


class Array(NamedTuple):
    """An operand or result: its size in bytes, and whether it lies in HBM."""

    num_bytes: int
    is_in_hbm: bool


def hbm_bytes(hlo: str, num_trips: int = 1) -> int:
    """Returns the bytes that one run of a program moves to and from HBM.

    Each instruction reads its operands as a whole and writes its results. XLA's own count, "bytes
    accessed", includes arrays in VMEM, the on-chip memory, where the TPU compiler keeps many maps.

    Args:
        hlo: text of the compiled program.
        num_trips: how often its loops run, which the text does not say.
    """
    computations: dict[str, list[str]] = {}
    entry = ""
    for line in hlo.splitlines():
        header = re.match(r"(ENTRY )?%?([\w.\-]+) .*\{$", line)
        if header:
            lines = computations[header[2]] = []
            entry = header[2] if header[1] else entry
        elif line.startswith("  "):
            lines.append(line)
    return _count(entry, computations, num_trips)


def _count(name: str, computations: dict[str, list[str]], num_trips: int) -> int:
    shapes: dict[str, str] = {}
    total = 0
    for match in filter(None, map(_INSTRUCTION.match, computations[name])):
        result, shape, operation, operands, attributes = match.groups()
        shapes[result] = shape
        if operation in _MOVE_NOTHING or operation.endswith("-done"):
            continue
        if operation == "while":
            body = re.search(r"body=%?([\w.\-]+)", attributes)
            assert body, match[0]
            total += num_trips * _count(body[1], computations, num_trips)
        elif operation in ("copy-start", "slice-start"):
            # Both have a source and a destination; the smaller one is what is moved.
            pair = _arrays(shape)[:2]
            size = min(array.num_bytes for array in pair)
            total += sum(size for array in pair if array.is_in_hbm)
        else:
            names = dict.fromkeys(re.findall(r"%([\w.\-]+)", operands))
            arrays = [a for name in names for a in _arrays(shapes[name])] + _arrays(shape)
            total += sum(array.num_bytes for array in arrays if array.is_in_hbm)
    return total


def _arrays(shape: str) -> list[Array]:
    """Returns the arrays of an instruction's shape, which may be a tuple."""
    arrays = []
    for bits, sizes, layout in _ARRAY.findall(shape):
        size = math.prod(int(n) for n in sizes.split(",") if n)
        num_bits = size * int(bits or 8)  # a pred takes a byte
        arrays.append(Array(num_bits // 8, not _ON_CHIP.search(layout)))
    return arrays
