"""Counts the collectives of a compiled program: what the chips exchange, and what they wait for."""

import dataclasses
import math
import re
from collections import defaultdict

from an_jax.benchmark.chips import Chip

_KINDS = "all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all"
_COLLECTIVE = re.compile(rf"%?(\S+) = (\(.*?\)|\S+) ({_KINDS})(-start|-done)?\((.*?)\)")
_ARRAY = re.compile(r"\b([a-z]+)(\d+)\[([\d,]*)\]")
# Instructions that compute; a collective that runs during one of them costs less.
_COMPUTES = re.compile(r" = \S.*? (fusion|convolution|dot|custom-call|while)\(")


@dataclasses.dataclass
class Exchange:
    """The collectives of one kind in a program.

    Attributes:
        count: number of them.
        num_bytes: size of their results on one chip, together.
        exposed_count: number of those during which the chip computes nothing.
        exposed_bytes: size of their results.
    """

    count: int = 0
    num_bytes: int = 0
    exposed_count: int = 0
    exposed_bytes: int = 0


def count_collectives(hlo: str) -> dict[str, Exchange]:
    """Returns the collectives by kind in the text of a compiled program, whose order is known."""
    kinds: dict[str, Exchange] = defaultdict(Exchange)
    running: dict[str, bool] = {}  # name of a collective that has started -> whether it overlaps
    for line in hlo.splitlines():
        match = _COLLECTIVE.search(line)
        if match is None:
            if _COMPUTES.search(line):
                running = dict.fromkeys(running, True)
            continue
        name, result, kind, phase, operands = match.groups()
        if phase == "-start":
            running[name] = False
            continue
        exchange = kinds[kind]
        num_bytes = _size(result)
        exchange.count += 1
        exchange.num_bytes += num_bytes
        if not running.pop(operands.lstrip("%"), False):
            exchange.exposed_count += 1
            exchange.exposed_bytes += num_bytes
    return dict(sorted(kinds.items()))


def exposed_seconds(kinds: dict[str, Exchange], chip: Chip) -> float:
    """Returns the least time for which a chip waits for collectives.

    An all-reduce sends and receives its bytes at least twice, the others once. Latency and the
    shape of the network are not included.
    """
    total = sum(
        (4 if kind == "all-reduce" else 2) * exchange.exposed_bytes
        for kind, exchange in kinds.items()
    )
    return total / chip.interconnect


def describe_collectives(kinds: dict[str, Exchange]) -> list[str]:
    """Returns a line for each kind."""
    return [
        f"  {kind}: {exchange.count} of {exchange.num_bytes / 1e6:.1f} MB together; the chip waits "
        f"for {exchange.exposed_count} of {exchange.exposed_bytes / 1e6:.1f} MB"
        for kind, exchange in kinds.items()
    ]


def _size(result: str) -> int:
    """Returns the bytes of an instruction's result, which may be a tuple."""
    return sum(
        int(bits) // 8 * math.prod(int(n) for n in shape.split(",") if n)
        for _, bits, shape in _ARRAY.findall(result)
    )
