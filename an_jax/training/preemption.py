"""Preemption: clusters send SIGTERM before they take a machine away, and users press Ctrl-C."""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

import jax
from jax.experimental import multihost_utils

_CTRL_C = "Ctrl-C"


class Preempted(Exception):
    """The run must stop; its state is saved or being saved."""


class Preemption:
    """A context manager that handles SIGTERM and Ctrl-C (SIGINT).

    A second Ctrl-C raises KeyboardInterrupt. With several processes, each may receive the signal at
    another time, or not at all. jax's coordination service then chooses a step that all of them
    reach.

    Attributes:
        reason: what stops the run, for the log.
    """

    def __init__(self) -> None:
        self.reason = "SIGTERM"
        self._is_requested = self._stops_at_once = False
        self._old_handlers: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> "Preemption":
        handlers = {signal.SIGINT: self._interrupt}
        if jax.process_count() == 1:  # otherwise jax handles SIGTERM
            handlers[signal.SIGTERM] = self._handle
        for number, handler in handlers.items():
            self._old_handlers[number] = signal.signal(number, handler)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._is_requested = True
        if self._stops_at_once:
            raise Preempted

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.reason == _CTRL_C:
            raise KeyboardInterrupt
        self.reason = _CTRL_C
        # Not print: the signal may arrive while something is printed.
        os.write(2, b"\nCtrl-C: saving after this step; press it again to stop at once\n")
        if jax.process_count() == 1:
            self._handle(number, frame)
        else:
            os.kill(os.getpid(), signal.SIGTERM)

    def requested(self, step: int) -> bool:
        """Whether to save and stop now; every process calls this after every step."""
        if jax.process_count() == 1:
            return self._is_requested
        return multihost_utils.reached_preemption_sync_point(step)

    @contextlib.contextmanager
    def stopping_at_once(self) -> Iterator[None]:
        """Makes the signals raise Preempted immediately (one process only).

        Use it when everything is saved.
        """
        self._stops_at_once = True
        try:
            if self._is_requested:
                raise Preempted
            yield
        finally:
            self._stops_at_once = False
