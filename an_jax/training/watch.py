"""Follows the steps of a run: progress bar, training log, detection of non-finite losses."""

import math
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import optax
from tqdm import tqdm

from an_jax import parallel
from an_jax.errors import InputError
from an_jax.training.input_wait import InputWait, Shares
from an_jax.training.log import RunLog
from an_jax.training.step import Metrics
from an_jax.watchdog import note_progress


class LoggedStep(NamedTuple):
    """A step that the device has computed."""

    epoch: int
    step: int
    metrics: dict[str, float]


class StepWatch:
    """Reads metrics two steps late so that the device always has queued work.

    Args:
        log: receives a line for each `log_steps` steps.
        progress: counts images.
        schedule: the learning rate of each update.
        batch_size: global batch size.
        log_steps: number of steps in a line of the log.
        input_wait: measures the wait for input.
        describe_last_checkpoint: says which checkpoint is the last good one, for errors.
    """

    def __init__(
        self,
        *,
        log: RunLog,
        progress: tqdm,
        schedule: optax.Schedule,
        batch_size: int,
        log_steps: int,
        input_wait: InputWait,
        describe_last_checkpoint: Callable[[], str],
    ):
        self._log, self._progress, self._schedule = log, progress, schedule
        self._batch_size, self._log_steps, self._input_wait = batch_size, log_steps, input_wait
        self._describe_last_checkpoint = describe_last_checkpoint
        self._dispatched: deque[tuple[int, int, Metrics, Shares | None]] = deque()
        self._window: list[LoggedStep] = []  # the steps of the next line
        self._window_began: tuple[float, int] | None = None  # at this time, after this step
        self._last_wait = "?"  # of the last line
        self._skipped = 0
        self._error: Exception | None = None

    def skip(self, names: list[str]) -> None:
        """Counts images that cannot be decoded, and prints their names."""
        self._skipped += len(names)
        for name in names:
            tqdm.write(f"skipped: {name} is corrupt or no image", file=sys.stderr)

    def take_skipped(self) -> int:
        """Returns this process's number of skipped images since the last call."""
        count, self._skipped = self._skipped, 0
        return count

    def add(self, epoch: int, step: int, metrics: Metrics, error: Exception | None = None) -> None:
        """Takes the metrics of a step that was just dispatched; `step` includes it.

        Args:
            epoch, step: numbers, from 1.
            metrics: metrics of the step.
            error: the error of this process, if it has failed.

        Raises:
            InputError: the loss of an earlier step is NaN or infinite, or another process has
                failed.
            Exception: `error`, once the other processes know of it.
        """
        self._error = error
        shares = self._input_wait.take() if step % self._log_steps == 0 else None
        self._dispatched.append((epoch, step, metrics, shares))
        if len(self._dispatched) > 2:
            self._read_metrics()

    def drain(self) -> None:
        """Waits for the device and logs the steps so far. Raises InputError as `add` does."""
        while self._dispatched:
            self._read_metrics()
        if self._window:
            self._log_window(self._input_wait.take())
        self._input_wait.pause()
        self._log.write()  # before a checkpoint of this step is complete
        self._window_began = None  # checkpoints and evaluation do not count as the steps' time

    def _read_metrics(self) -> None:
        epoch, step, on_device, shares = self._dispatched.popleft()
        fields = jax.device_get(on_device)._asdict()
        metrics = {name: float(value) for name, value in fields.items()}
        loss = metrics["loss"]
        if not math.isfinite(loss):
            with parallel.failing_together():  # see `epoch_batches`
                if self._error is not None:
                    raise self._error
            raise InputError(
                f"the loss is {loss} at step {step} (epoch {epoch}): lower the learning rate; "
                f"{self._describe_last_checkpoint()}"
            )
        self._window_began = self._window_began or (time.perf_counter(), step)
        self._window.append(LoggedStep(epoch, step, metrics))
        rate = float(self._schedule(step - 1))
        self._progress.set_postfix(
            epoch=epoch,
            step=step,
            loss=f"{loss:.3f}",
            lr=f"{rate:.3g}",
            input_wait=self._last_wait,
            refresh=False,
        )
        self._progress.update(self._batch_size)
        note_progress(f"step {step}")
        if shares is not None:
            self._log_window(shares)

    def _log_window(self, shares: Shares) -> None:
        assert self._window_began is not None
        (began, first), now, last = self._window_began, time.perf_counter(), self._window[-1]
        images = (last.step - first) * self._batch_size
        line = {
            "epoch": last.epoch,
            "step": last.step,
            "steps": len(self._window),
            **{
                name: float(np.mean([step.metrics[name] for step in self._window]))
                for name in Metrics._fields
            },
            "learning_rate": float(self._schedule(last.step - 1)),
            "images_per_second": round(images / (now - began), 1) if images else 0.0,
            "input_wait": round(float(shares.mean), 4),
            "input_wait_worst": round(float(shares.worst), 4),
        }
        self._last_wait = f"{line['input_wait']:.0%}"
        self._log.add_steps(line)
        self._window, self._window_began = [], (now, last.step)
