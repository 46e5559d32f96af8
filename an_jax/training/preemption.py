"""SIGTERM, with which clusters announce that a machine goes: heard, and answered between steps."""

import contextlib
import signal
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils


class Preempted(Exception):
    """Time to stop; everything is saved or being saved."""


class Preemption:
    """A context manager that listens for SIGTERM.

    Of several processes, each may hear it at another time; jax's coordination service then chooses
    a step that all of them reach.
    """

    def __init__(self):
        self._heard = self._at_once = False
        self._before = None

    def __enter__(self) -> "Preemption":
        if jax.process_count() == 1:
            self._before = signal.signal(signal.SIGTERM, self._hear)
        return self

    def __exit__(self, *exception) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _hear(self, number, frame) -> None:
        self._heard = True
        if self._at_once:
            raise Preempted

    def requested(self, step: int) -> bool:
        """Whether to save and stop now; to be asked after every step, by every process."""
        if jax.process_count() == 1:
            return self._heard
        return multihost_utils.reached_preemption_sync_point(step)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """While nothing can be lost, a single process stops wherever it is: raises Preempted."""
        self._at_once = True
        try:
            if self._heard:
                raise Preempted
            yield
        finally:
            self._at_once = False
