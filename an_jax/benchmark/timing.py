"""Honest times: what is compared runs by turns, each until its results are there."""

import dataclasses
import functools
import math
import statistics
import time
from collections.abc import Callable

from an_jax.errors import InputError

STARTED = 4  # steps, after which a program is in its stride


@dataclasses.dataclass(frozen=True)
class Times:
    """Of one step, in seconds, in each turn."""

    turns: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.turns)

    @property
    def least(self) -> float:
        return min(self.turns)

    @property
    def largest(self) -> float:
        return max(self.turns)


def measure(
    programs: dict[str, Callable[[int], None]], *, repeats: int, seconds: float
) -> dict[str, Times]:
    """Times programs side by side: in each repeat each runs once, so that all see the same machine.

    Args:
        programs: name -> function that runs n steps and returns when all have ended.
        repeats: how often each is timed.
        seconds: about how long one repeat of a program lasts; it has at least one step.
    """
    turns = {}
    for name, run in programs.items():
        run(1)  # compiles, and fills caches
        run(1)
        steps = max(1, math.ceil(seconds / _seconds(run, 1)))
        turns[name] = functools.partial(_step, run, steps)
    return _by_turns(turns, repeats)


def measure_started(
    programs: dict[str, Callable[[int], None]], *, repeats: int, seconds: float
) -> dict[str, Times]:
    """As `measure`, for programs that take time to start and to end, which does not count.

    In its turn a program runs twice, from its start to its end: a few steps, then more. A step is
    what the second run takes longer, over the steps that it has more; that is about `seconds`.

    Raises:
        InputError: `seconds` is too short to tell steps from what a start varies by.
    """
    turns = {}
    for name, run in programs.items():
        run(STARTED)  # compiles, and fills caches
        more = STARTED
        # The lesser of two, for a start that happens to be long would end the search.
        while more * min(_further_step(run, more), _further_step(run, more)) < seconds:
            more *= 2
        turns[name] = functools.partial(_further_step, run, more)
    return _by_turns(turns, repeats)


def _by_turns(turns, repeats) -> dict[str, Times]:
    found = {name: [] for name in turns}
    for _ in range(repeats):
        for name, turn in turns.items():
            seconds = turn()
            if seconds <= 0:
                raise InputError(f"{name}: more steps took less time: use a longer --seconds")
            found[name].append(seconds)
    return {name: Times(tuple(values)) for name, values in found.items()}


def _step(run, n):
    return _seconds(run, n) / n


def _further_step(run, n):
    short = _seconds(run, STARTED)
    return (_seconds(run, STARTED + n) - short) / n


def _seconds(run, n):
    began = time.perf_counter()
    run(n)
    return time.perf_counter() - began


def rates(name: str, times: Times, items: int) -> dict:
    """{name: items a second in the median turn, name_range: in the slowest and the fastest}."""
    found = {name: items / times.median}
    return found | {f"{name}_range": (items / times.largest, items / times.least)}


def ratio(name: str, times: Times, others: Times) -> dict:
    """{name: the others' median over ours, name_range: the least and largest of one turn}."""
    by_turn = [other / own for own, other in zip(times.turns, others.turns, strict=True)]
    return {name: others.median / times.median, f"{name}_range": (min(by_turn), max(by_turn))}
