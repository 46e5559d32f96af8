"""What a run leaves to be read: JSON lines of epochs and of steps, and TensorBoard scalars."""

import contextlib
import json
import socket
import time

from etils import epath

from an_jax.data.tf_on_cpu import tf
from an_jax.errors import InputError

EPOCHS, STEPS = "metrics.jsonl", "steps.jsonl"


def read_lines(path: epath.Path) -> list[dict]:
    """The objects of a file of JSON lines; of a line cut short by a kill, nothing."""
    lines = []
    for line in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            lines.append(json.loads(line))
    return lines


class RunLog:
    """The log of a run: what came after the step that it goes on from is dropped.

    Files are written whole, so that a kill leaves the old or the new, also on gs://.

    Args:
        workdir: of the run.
        step: updates made so far.
        writes: whether this process writes at all.
    """

    def __init__(self, workdir: epath.Path, step: int, *, writes: bool):
        self._workdir, self._writes = workdir, writes
        self.epochs, self.steps = (
            [line for line in read_lines(workdir / name) if line["step"] <= step]
            for name in (EPOCHS, STEPS)
        )
        if writes:
            if self.steps:
                self._write(EPOCHS, self.epochs)
                self._write(STEPS, self.steps)
            name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}"
            (workdir / "tensorboard").mkdir(exist_ok=True)
            self._events = tf.io.TFRecordWriter(str(workdir / "tensorboard" / name))
            self._event(file_version="brain.Event:2")
            # TensorBoard forgets what an earlier start showed after this step.
            start = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
            self._event(step=step, session_log=start)

    def add_steps(self, line: dict) -> None:
        """Adds a line about some steps; it has `step`, the number of updates made."""
        self._add(self.steps, STEPS, "train/", line)

    def add_epoch(self, line: dict) -> None:
        """Adds a line about an epoch; it has `step`, the number of updates made."""
        self._add(self.epochs, EPOCHS, "", line)

    def _add(self, lines: list[dict], name: str, prefix: str, line: dict) -> None:
        lines.append(line)
        if not self._writes:
            return
        try:
            self._write(name, lines)
            values = [
                tf.compat.v1.Summary.Value(tag=prefix + key, simple_value=value)
                for key, value in line.items()
                if key != "step"
            ]
            self._event(step=line["step"], summary=tf.compat.v1.Summary(value=values))
            self._events.flush()
        except (OSError, tf.errors.OpError) as error:
            raise InputError(f"cannot write to {self._workdir}: {error}") from error

    def _write(self, name: str, lines: list[dict]) -> None:
        temporary = self._workdir / f".{name}.tmp"
        temporary.write_text("".join(json.dumps(line) + "\n" for line in lines))
        temporary.replace(self._workdir / name)

    def _event(self, **fields) -> None:
        event = tf.compat.v1.Event(wall_time=time.time(), **fields)
        self._events.write(event.SerializeToString())
