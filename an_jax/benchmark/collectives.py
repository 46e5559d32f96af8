"""Counts the collectives of a compiled program: what the chips exchange, and what they wait for."""

import dataclasses
import math
import re
from collections import defaultdict

from an_jax.benchmark.chips import Chip

_KINDS = "all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all"
_COLLECTIVE = re.compile(rf"%?(\S+) = (\(.*?\)|\S+) ({_KINDS})(-start|-done)?\((.*?)\)")
_GROUPS = re.compile(r"replica_groups=(?:\[\d+,(\d+)\]|\{\{([\d,]*)\})")
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
        sent_bytes: the least that a chip sends in these, in rings.
    """

    count: int = 0
    num_bytes: int = 0
    exposed_count: int = 0
    exposed_bytes: int = 0
    sent_bytes: float = 0.0


def count_collectives(hlo: str) -> dict[str, Exchange]:
    """Returns the collectives by kind in the text of a compiled program, in order of execution.

    Those inside of a fused or asynchronous computation count as exposed.
    """
    kinds: dict[str, Exchange] = defaultdict(Exchange)
    running: dict[str, bool] = {}  # name of a collective that has started -> whether it overlaps
    shares: dict[str, float] = {}  # the same names -> share sent, which only the start tells
    for line in hlo.splitlines():
        match = _COLLECTIVE.search(line)
        if match is None:
            if _COMPUTES.search(line):
                running = dict.fromkeys(running, True)
            continue
        name, result, kind, phase, operands = match.groups()
        if phase == "-start":
            running[name], shares[name] = False, _share_sent(line, kind)
            continue
        exchange = kinds[kind]
        num_bytes = _size(result)
        exchange.count += 1
        exchange.num_bytes += num_bytes
        started = operands.lstrip("%")
        if not running.pop(started, False):
            exchange.exposed_count += 1
            exchange.exposed_bytes += num_bytes
            exchange.sent_bytes += num_bytes * shares.get(started, _share_sent(line, kind))
    return dict(sorted(kinds.items()))


def exposed_seconds(kinds: dict[str, Exchange], chip: Chip) -> float:
    """Returns the least time for which a chip waits for collectives, without any latency."""
    # It receives as much as it sends.
    return sum(2 * exchange.sent_bytes for exchange in kinds.values()) / chip.interconnect


def describe_collectives(kinds: dict[str, Exchange]) -> list[str]:
    """Returns a line for each kind."""
    return [
        f"  {kind}: {exchange.count} of {exchange.num_bytes / 1e6:.1f} MB together; the chip waits "
        f"for {exchange.exposed_count} of {exchange.exposed_bytes / 1e6:.1f} MB"
        for kind, exchange in kinds.items()
    ]


def _share_sent(instruction: str, kind: str) -> float:
    """Returns the least that each of n chips sends, in sizes of the result."""
    match = _GROUPS.search(instruction)
    if match is None:  # of a permutation, or of all chips
        return 2.0 if kind == "all-reduce" else 1.0
    n = int(match[1]) if match[1] else len(match[2].split(","))
    return (2 if kind == "all-reduce" else 1) * (n - 1) / n


def _size(result: str) -> int:
    """Returns the bytes of an instruction's result, which may be a tuple."""
    return sum(
        int(bits) // 8 * math.prod(int(n) for n in shape.split(",") if n)
        for _, bits, shape in _ARRAY.findall(result)
    )
