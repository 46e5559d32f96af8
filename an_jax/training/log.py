"""What a run leaves to be read: JSON lines of epochs and of steps, and TensorBoard scalars."""

import contextlib
import json
import socket
import time

from etils import epath

from an_jax.data.tf_on_cpu import tf
from an_jax.errors import InputError
from an_jax.files import write_whole

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

    Args:
        workdir: of the run.
        step: updates made so far.
        writes: whether this process writes at all.

    Raises:
        InputError: the directory cannot be written to.
    """

    def __init__(self, workdir: epath.Path, step: int, *, writes: bool):
        self._workdir, self._writes = workdir, writes
        self.epochs, self.steps = (
            [line for line in read_lines(workdir / name) if line["step"] <= step]
            for name in (EPOCHS, STEPS)
        )
        if writes:
            self._begin(step)

    def _begin(self, step: int) -> None:
        with self._explaining():
            for name, lines in ((EPOCHS, self.epochs), (STEPS, self.steps)):
                if (self._workdir / name).exists():
                    write_whole(self._workdir / name, "".join(map(_json_line, lines)))
            directory = self._workdir / "tensorboard"
            directory.mkdir(exist_ok=True)
            name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}"
            self._events = tf.io.TFRecordWriter(str(directory / name))
            self._event(file_version="brain.Event:2")
            # TensorBoard forgets what an earlier start showed after this step.
            start = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
            self._event(step=step, session_log=start)

    def add_steps(self, line: dict) -> None:
        """Adds a line about some steps; it has `step`, the number of updates made.

        Raises:
            InputError: it cannot be written.
        """
        self._add(self.steps, STEPS, "train/", line)

    def add_epoch(self, line: dict) -> None:
        """Adds a line about an epoch; as add_steps."""
        self._add(self.epochs, EPOCHS, "", line)

    def _add(self, lines: list[dict], name: str, prefix: str, line: dict) -> None:
        lines.append(line)
        if not self._writes:
            return
        values = [
            tf.compat.v1.Summary.Value(tag=prefix + key, simple_value=value)
            for key, value in line.items()
            if key != "step"
        ]
        with self._explaining():
            with (self._workdir / name).open("a") as file:
                file.write(_json_line(line))
            self._event(step=line["step"], summary=tf.compat.v1.Summary(value=values))
            self._events.flush()

    def _event(self, **fields) -> None:
        event = tf.compat.v1.Event(wall_time=time.time(), **fields)
        self._events.write(event.SerializeToString())

    @contextlib.contextmanager
    def _explaining(self):
        try:
            yield
        except (OSError, tf.errors.OpError) as error:
            raise InputError(
                f"cannot write to {self._workdir}: {error}; make room and start again to go on "
                "from the last checkpoint"
            ) from error


def _json_line(line: dict) -> str:
    return json.dumps(line) + "\n"
