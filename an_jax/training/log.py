"""The training log: lines about epochs and about steps."""

from collections.abc import Callable

import numpy as np
from etils import epath

from an_jax.checkpoint import RANKINGS
from an_jax.data.tf_on_cpu import tf
from an_jax.errors import InputError
from an_jax.training.log_files import EPOCHS, LogFiles, read_lines
from an_jax.training.preemption import Preempted

# Field of metrics.jsonl -> the field of steps.jsonl that it averages.
MEANS = {
    "loss": "loss",
    "train_top1": "top1",
    "gradient_norm": "gradient_norm",
    "update_norm": "update_norm",
    "input_wait": "input_wait",
}


def epoch_metrics(
    epoch: int, step: int, steps: list[dict], scores: dict[str, float], skipped: int
) -> dict:
    """Returns the line of metrics.jsonl about an epoch.

    Args:
        epoch: number of the epoch, from 1.
        step: updates made at its end.
        steps: the epoch's lines of steps.jsonl. The result lacks the mean of a field that no line
            has, and learning_rate if there are no lines.
        scores: accuracies on the validation images.
        skipped: number of images that could not be decoded.
    """
    rates = [line["images_per_second"] for line in steps if line["images_per_second"]]
    means = {}
    for name, key in MEANS.items():
        lines = [line for line in steps if key in line]  # lines of older versions lack some fields
        if lines:
            values, weights = [line[key] for line in lines], [line["steps"] for line in lines]
            means[name] = float(np.average(values, weights=weights))
    return {
        "epoch": epoch,
        "step": step,
        **means,
        **scores,
        **({"learning_rate": steps[-1]["learning_rate"]} if steps else {}),
        "images_per_second": round(float(np.mean(rates)), 1) if rates else 0.0,
        "skipped": skipped,
    }


def is_best(scores: dict[str, float], epochs: list[dict]) -> bool:
    """Whether scores are at least those of every logged epoch, by any of the `RANKINGS`."""
    return any(
        scores[name] >= max((line.get(name, 0.0) for line in epochs), default=0.0)
        for name in scores.keys() & RANKINGS.keys()
    )


class RunLog:
    """The log of a run, a context manager that writes what is left on leaving.

    Attributes:
        epochs: the lines about epochs, up to the step at which the run resumes.
        steps: the lines about steps, on the process that writes: at least those of this epoch.

    Args:
        workdir: the run's working directory.
        step: updates made so far.
        is_writer: whether this process writes the files.

    Raises:
        InputError: the directory cannot be written to.
    """

    def __init__(self, workdir: epath.Path, step: int, *, is_writer: bool):
        self.epochs = [line for line in read_lines(workdir / EPOCHS) if line["step"] <= step]
        self._files = LogFiles(workdir, step, self.epochs) if is_writer else None
        self.steps = self._files.steps if self._files else []

    def add_steps(self, line: dict) -> None:
        """Adds a line about some steps; its `step` is the number of updates made."""
        self.steps.append(line)
        if self._files:
            self._files.add_event(step=line["step"], summary=_summary("train/", line))
            self._files.add_steps(line)

    def add_epoch(self, line: dict) -> None:
        """Adds a line about an epoch."""
        self.epochs.append(line)
        if self._files:
            self._files.add_event(step=line["step"], summary=_summary("", line))
            self._files.add_epoch(line)

    def write(self) -> None:
        """Writes the added lines in the background."""
        if self._files:
            self._files.write()

    def submit(self, job: Callable[[], None]) -> None:
        """Has a job done in the background after that, where this process writes the files."""
        if self._files:
            self._files.submit(job)

    def wait_for_epoch(self) -> None:
        """Waits for the last line about an epoch. Raises InputError as `check` does."""
        if self._files:
            self._files.wait_for_epoch()

    def flush(self) -> None:
        """Waits until everything is written. Raises InputError as `check` does."""
        if self._files:
            self._files.flush()

    def check(self) -> None:
        """Raises InputError if something could not be written."""
        if self._files:
            self._files.check()

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind: object, exception: object, traceback: object) -> None:
        if self._files:
            try:
                self._files.close()
            except InputError:
                # Otherwise the first error counts. A run that is stopped has none.
                if exception is None or isinstance(exception, Preempted):
                    raise


def _summary(prefix: str, line: dict) -> tf.compat.v1.Summary:
    values = [
        tf.compat.v1.Summary.Value(tag=prefix + key, simple_value=value)
        for key, value in line.items()
        if key != "step"
    ]
    return tf.compat.v1.Summary(value=values)
