"""Honest times: what is compared runs by turns, each until its results are there."""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Times:
    """Of one step, in seconds: the median over the repeats, and their least and largest."""

    median: float
    least: float
    largest: float


def measure(
    programs: dict[str, Callable[[int], None]], *, repeats: int, seconds: float
) -> dict[str, Times]:
    """Times programs side by side: in each repeat each runs once, so that all see the same machine.

    Args:
        programs: name -> function that runs n steps and returns when all have ended.
        repeats: how often each is timed.
        seconds: about how long one repeat of a program lasts; it has at least one step.
    """
    steps = {}
    for name, run in programs.items():
        run(1)  # compiles, and fills caches
        run(1)
        steps[name] = max(1, math.ceil(seconds / _seconds(run, 1)))
    found = {name: [] for name in programs}
    for _ in range(repeats):
        for name, run in programs.items():
            found[name].append(_seconds(run, steps[name]) / steps[name])
    return {
        name: Times(statistics.median(values), min(values), max(values))
        for name, values in found.items()
    }


def _seconds(run, n):
    began = time.perf_counter()
    run(n)
    return time.perf_counter() - began
