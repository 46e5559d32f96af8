"""Timing of programs that take turns, so that all of them see the same machine."""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from an_jax.errors import InputError

WARM_UP_STEPS = 4

Run = Callable[[int], None]  # runs n steps, and returns when all of them have ended


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds a step, one value for each turn."""

    turns: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median over the turns."""
        return statistics.median(self.turns)

    @property
    def least(self) -> float:
        """The time in the fastest turn."""
        return min(self.turns)

    @property
    def largest(self) -> float:
        """The time in the slowest turn."""
        return max(self.turns)


def measure(programs: Mapping[str, Run], *, repeats: int, seconds: float) -> dict[str, Times]:
    """Times steps of programs that take turns.

    Args:
        programs: name -> program.
        repeats: number of turns.
        seconds: approximate length of a program's turn, which has at least one step.
    """
    steps = {}
    for name, run in programs.items():
        run(1)  # compiles, and fills caches
        run(1)
        steps[name] = max(1, math.ceil(seconds / _time_run(run, 1)))
    return _take_turns(programs, steps, _average_step, repeats)


def measure_started(
    programs: Mapping[str, Run], *, repeats: int, seconds: float
) -> dict[str, Times]:
    """Times steps of programs whose start and end take time that must not count.

    In its turn a program runs twice from start to end: a few steps, then more. The time of a step
    is the difference between the two runs over the number of additional steps. The additional
    steps take at least `seconds`.

    Raises:
        InputError: `seconds` is too short to tell the steps from the variation of the start.
    """
    steps = {}
    for name, run in programs.items():
        run(WARM_UP_STEPS)  # compiles, and fills caches
        more = WARM_UP_STEPS
        # The lesser of two, because one long start would end the search too early.
        while more * min(_marginal_step(run, more), _marginal_step(run, more)) < seconds:
            more *= 2
        steps[name] = more
    return _take_turns(programs, steps, _marginal_step, repeats)


def _take_turns(
    programs: Mapping[str, Run],
    steps: Mapping[str, int],
    time_step: Callable[[Run, int], float],
    repeats: int,
) -> dict[str, Times]:
    turns: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(repeats):
        for name, run in programs.items():
            seconds = time_step(run, steps[name])
            if seconds <= 0:
                raise InputError(f"{name}: more steps took less time: use a longer --seconds")
            turns[name].append(seconds)
    return {name: Times(tuple(values)) for name, values in turns.items()}


def _average_step(run: Run, steps: int) -> float:
    return _time_run(run, steps) / steps


def _marginal_step(run: Run, steps: int) -> float:
    short = _time_run(run, WARM_UP_STEPS)
    return (_time_run(run, WARM_UP_STEPS + steps) - short) / steps


def _time_run(run: Run, steps: int) -> float:
    began = time.perf_counter()
    run(steps)
    return time.perf_counter() - began


def rates(name: str, times: Times, items: int) -> dict[str, Any]:
    """Returns {name: items a second in the median turn, name_range: (slowest, fastest) turn}."""
    extremes = (items / times.largest, items / times.least)
    return {name: items / times.median, f"{name}_range": extremes}


def ratio(name: str, times: Times, reference: Times) -> dict[str, Any]:
    """Returns {name: median of `reference` over that of `times`, name_range: (least, largest)}.

    The range is that of the ratios within one turn.
    """
    by_turn = [other / own for own, other in zip(times.turns, reference.turns, strict=True)]
    extremes = (min(by_turn), max(by_turn))
    return {name: reference.median / times.median, f"{name}_range": extremes}
