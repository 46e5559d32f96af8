"""Preemption: clusters send SIGTERM before they take a machine away."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

import jax
from jax.experimental import multihost_utils


class Preempted(Exception):
    """The run must stop; its state is saved or being saved."""


class Preemption:
    """A context manager that handles SIGTERM.

    With several processes, each may receive the signal at another time, or not at all. jax's
    coordination service then chooses a step that all of them reach.
    """

    def __init__(self) -> None:
        self._is_requested = self._stops_at_once = False
        self._old_handler: signal._HANDLER = None

    def __enter__(self) -> "Preemption":
        if jax.process_count() == 1:
            self._old_handler = signal.signal(signal.SIGTERM, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._old_handler is not None:
            signal.signal(signal.SIGTERM, self._old_handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._is_requested = True
        if self._stops_at_once:
            raise Preempted

    def requested(self, step: int) -> bool:
        """Whether to save and stop now; every process calls this after every step."""
        if jax.process_count() == 1:
            return self._is_requested
        return multihost_utils.reached_preemption_sync_point(step)

    @contextlib.contextmanager
    def stopping_at_once(self) -> Iterator[None]:
        """Makes SIGTERM raise Preempted immediately (one process only).

        Use it when everything is saved.
        """
        self._stops_at_once = True
        try:
            if self._is_requested:
                raise Preempted
            yield
        finally:
            self._stops_at_once = False
