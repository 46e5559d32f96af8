"""The log files of a run: JSON lines of epochs and of steps, and TensorBoard scalars."""

import contextlib
import json
import socket
import time
from collections.abc import Iterator

import numpy as np
from etils import epath

from an_jax.checkpoint import RANKINGS
from an_jax.data.tf_on_cpu import tf
from an_jax.errors import InputError, file_errors, one_line, with_advice
from an_jax.files import write_atomically
from an_jax.training.messages import how_to_resume, say

EPOCHS, STEPS = "metrics.jsonl", "steps.jsonl"


def read_lines(path: epath.Path) -> list[dict]:
    """Returns the objects of a file of JSON lines, without a line that a kill cut short."""
    lines = []
    for line in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            lines.append(json.loads(line))
    return lines


def epoch_metrics(
    epoch: int, step: int, steps: list[dict], scores: dict[str, float], skipped: int
) -> dict:
    """Returns the line of metrics.jsonl about an epoch.

    Args:
        epoch: number of the epoch, from 1.
        step: updates made at its end.
        steps: the epoch's lines of steps.jsonl. Without any, the result has no loss, train_top1 and
            learning_rate.
        scores: accuracies on the validation images.
        skipped: number of images that could not be decoded.
    """
    weights = [line["steps"] for line in steps]
    rates = [line["images_per_second"] for line in steps if line["images_per_second"]]
    means = {
        name: float(np.average([line[key] for line in steps], weights=weights))
        for name, key in (("loss", "loss"), ("train_top1", "top1"))
        if steps
    }
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
    """The log files of a run. Drops the lines after the step at which the run resumes.

    Args:
        workdir: the run's working directory.
        step: updates made so far.
        is_writer: whether this process writes the files.

    Raises:
        InputError: the directory cannot be written to.
    """

    def __init__(self, workdir: epath.Path, step: int, *, is_writer: bool):
        self._workdir, self._is_writer = workdir, is_writer
        self._has_warned = False
        self.epochs, self.steps = (
            [line for line in read_lines(workdir / name) if line["step"] <= step]
            for name in (EPOCHS, STEPS)
        )
        if is_writer:
            self._open(step)

    def _open(self, step: int) -> None:
        with self._explain_errors():
            for name, lines in ((EPOCHS, self.epochs), (STEPS, self.steps)):
                if (self._workdir / name).exists():
                    write_atomically(self._workdir / name, "".join(map(_json_line, lines)))
            directory = self._workdir / "tensorboard"
            directory.mkdir(exist_ok=True)
            name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}"
            self._events = tf.io.TFRecordWriter(str(directory / name))
            self._event(file_version="brain.Event:2")
            # This event makes TensorBoard drop what an earlier start logged after this step.
            start = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
            self._event(step=step, session_log=start)

    def add_steps(self, line: dict) -> None:
        """Adds a line about some steps; its `step` is the number of updates made.

        Raises:
            InputError: it cannot be written.
        """
        self._add(self.steps, STEPS, "train/", line)

    def add_epoch(self, line: dict) -> None:
        """Adds a line about an epoch, as `add_steps` does."""
        self._add(self.epochs, EPOCHS, "", line)

    def _add(self, lines: list[dict], name: str, prefix: str, line: dict) -> None:
        lines.append(line)
        if not self._is_writer:
            return
        values = [
            tf.compat.v1.Summary.Value(tag=prefix + key, simple_value=value)
            for key, value in line.items()
            if key != "step"
        ]
        with self._explain_errors(), (self._workdir / name).open("a") as file:
            file.write(_json_line(line))
        self._event(step=line["step"], summary=tf.compat.v1.Summary(value=values))

    def _event(self, **fields: object) -> None:
        """Adds an event to TensorBoard's log. The first failure is reported; training goes on."""
        event = tf.compat.v1.Event(wall_time=time.time(), **fields)
        try:
            self._events.write(event.SerializeToString())
            self._events.flush()
        except file_errors() as error:
            if not self._has_warned:
                say(f"warning: TensorBoard's log cannot be written: {with_advice(error)}")
            self._has_warned = True

    @contextlib.contextmanager
    def _explain_errors(self) -> Iterator[None]:
        try:
            yield
        except file_errors() as error:
            raise InputError(
                f"cannot write to {self._workdir}: {one_line(error)}; {how_to_resume(error)}"
            ) from error


def _json_line(line: dict) -> str:
    return json.dumps(line) + "\n"
