"""Runs evaluate.py, and writes how long its parts take.

python -m an_jax.benchmark.startup_parts JSON EVALUATE FLAGS...
"""

import functools
import json
import runpy
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Parts = dict[str, float]  # part -> seconds
# Events of jax for each program, with their durations.
EVENTS = {
    "/jax/core/compile/jaxpr_trace_duration": "tracing",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lowering",
    "/jax/core/compile/backend_compile_duration": "compiling or loading",
}


def main(result: str, script: str, *arguments: str) -> None:
    """Runs the script and writes {part: seconds} to the file `result`."""
    parts: Parts = defaultdict(float)
    observe(parts)
    sys.argv = [script, *arguments]
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        Path(result).write_text(json.dumps(parts))


def observe(parts: Parts) -> None:
    """Imports everything, and lets the following calls add their seconds to `parts`."""
    from an_jax.jax_settings import collect_garbage_rarely

    collect_garbage_rarely()  # as evaluate.py does
    import jax

    from an_jax.evaluation import evaluator, inputs, output, suite

    parts["imports, CPU time"] = time.process_time()  # since Python's start

    def add_event(event: str, duration_secs: float, **details: str | int) -> None:
        if event in EVENTS and "_eval_step" in str(details.get("fun_name")):
            parts[EVENTS[event]] += duration_secs

    jax.monitoring.register_event_duration_secs_listener(add_event)
    for module, name, part in (
        (inputs, "read_inputs", "opening the data"),
        (suite, "load_model", "reading the weights"),
        (suite, "summarize", "counting operations"),
        (output, "write_output", "writing the results"),
    ):
        setattr(module, name, timed(getattr(module, name), part, parts))
    evaluator.lockstep_batches = timed_first(evaluator.lockstep_batches, "first batch", parts)


def timed(function: Callable, part: str, parts: Parts) -> Callable:
    """Returns a function that adds the seconds of its calls to a part."""

    @functools.wraps(function)
    def call(*arguments: Any, **settings: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*arguments, **settings)
        finally:
            parts[part] += time.perf_counter() - began

    return call


def timed_first(generator: Callable[..., Iterator], part: str, parts: Parts) -> Callable:
    """Returns a generator function that adds the seconds until its first item to a part."""

    def generate(*arguments: Any) -> Iterator:
        items = generator(*arguments)
        yield timed(next, part, parts)(items)
        yield from items

    return generate


if __name__ == "__main__":
    main(*sys.argv[1:])
