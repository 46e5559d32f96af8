"""What is seen of the steps of a run while it runs: progress, rate, losses that are no numbers."""

import math
import sys
import time
from collections import deque
from collections.abc import Callable

import numpy as np
import optax
from tqdm import tqdm

from an_jax.errors import InputError
from an_jax.training.log import RunLog
from an_jax.training.step import Metrics


class StepWatch:
    """Follows the steps, two behind the device, which thus always has work.

    Args:
        log: receives a line for each `log_steps` steps.
        progress: counts images.
        schedule: the learning rate of each update.
        batch_size: of all devices together.
        log_steps: how many steps a line is about.
        last_whole: says which checkpoint is the last good one.
    """

    def __init__(
        self,
        log: RunLog,
        progress: tqdm,
        schedule: optax.Schedule,
        batch_size: int,
        log_steps: int,
        last_whole: Callable[[], str],
    ):
        self._log, self._progress, self._schedule = log, progress, schedule
        self._batch_size, self._log_steps, self._last_whole = batch_size, log_steps, last_whole
        self._running: deque[tuple[int, int, Metrics]] = deque()
        self._window: list[tuple[float, float]] = []
        self._skipped = 0
        self._clock: tuple[float, int] | None = None  # since when, after how many steps

    def skip(self, names: list[str]) -> None:
        """Counts and names images that could not be read."""
        self._skipped += len(names)
        for name in names:
            tqdm.write(f"skipped: {name} is corrupt or no image", file=sys.stderr)

    def take_skipped(self) -> int:
        """How many there were since this was last asked, in this process."""
        count, self._skipped = self._skipped, 0
        return count

    def add(self, epoch: int, step: int, metrics: Metrics) -> None:
        """Takes the metrics of a step that has been dispatched; `step` counts it already.

        Raises:
            InputError: the loss of an earlier step is NaN or infinite.
        """
        self._running.append((epoch, step, metrics))
        if len(self._running) > 2:
            self._collect()

    def drain(self) -> None:
        """Waits for the device; closes the line of the log. Raises InputError as `add` does."""
        while self._running:
            self._collect()
        if self._window:
            self._close_window()
        self._clock = None  # what comes between is not the steps' time

    def _collect(self) -> None:
        epoch, step, metrics = self._running.popleft()
        loss, top1 = float(metrics.loss), float(metrics.top1)
        if not math.isfinite(loss):
            raise InputError(
                f"the loss is {loss} at step {step} (epoch {epoch}): lower the learning rate; "
                f"{self._last_whole()}"
            )
        self._clock = self._clock or (time.perf_counter(), step)
        self._window.append((epoch, step, loss, top1))
        rate = float(self._schedule(step - 1))
        self._progress.set_postfix(
            epoch=epoch, step=step, loss=f"{loss:.3f}", lr=f"{rate:.3g}", refresh=False
        )
        self._progress.update(self._batch_size)
        if step % self._log_steps == 0:
            self._close_window()

    def _close_window(self) -> None:
        epochs, steps, losses, top1s = zip(*self._window, strict=True)
        (since, first), now = self._clock, time.perf_counter()
        images = (steps[-1] - first) * self._batch_size
        line = {
            "epoch": epochs[-1],
            "step": steps[-1],
            "steps": len(steps),
            "loss": float(np.mean(losses)),
            "top1": float(np.mean(top1s)),
            "learning_rate": float(self._schedule(steps[-1] - 1)),
            "images_per_second": round(images / (now - since), 1) if images else 0.0,
        }
        self._log.add_steps(line)
        self._window, self._clock = [], (now, steps[-1])
