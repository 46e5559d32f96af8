"""Profiles some steps of a training run."""

from collections.abc import Callable

import jax
from etils import epath

from an_jax.training.messages import say

FIRST_STEP = 10  # counted from this start of the run; skips compilation and pipeline warm-up


class Profile:
    """A context manager that traces `num_steps` steps, on every process the same ones.

    On leaving, also by an exception, it writes a trace that is still running.

    Args:
        directory: receives the trace.
        num_steps: number of steps to trace; 0 for none.
        wait_for_device: returns when the device has computed all dispatched steps.
    """

    def __init__(self, directory: epath.Path, num_steps: int, wait_for_device: Callable[[], None]):
        self._directory, self._num_steps = directory, num_steps
        self._wait_for_device = wait_for_device
        self._is_tracing = False

    def before_step(self, step: int) -> None:
        """Starts or stops the trace; `step` counts from this start of the run."""
        if step == FIRST_STEP and self._num_steps:
            jax.profiler.start_trace(str(self._directory))
            self._is_tracing = True
        elif step == FIRST_STEP + self._num_steps and self._is_tracing:
            self._wait_for_device()
            self._stop()

    def _stop(self) -> None:
        self._is_tracing = False
        jax.profiler.stop_trace()
        say(f"profile written to {self._directory}")

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._is_tracing:
            self._stop()
