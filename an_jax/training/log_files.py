"""The files of a training log: JSON lines and TensorBoard events, written by a thread."""

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from etils import epath

from an_jax.data.tf_on_cpu import tf
from an_jax.errors import InputError, file_errors, one_line, with_advice
from an_jax.files import find_entries, is_remote, write_atomically
from an_jax.training.messages import how_to_resume, say

EPOCHS, STEPS, PARTS = "metrics.jsonl", "steps.jsonl", "steps"
INTERVAL = 10.0  # seconds between writes to a bucket, which are whole objects and take long


def read_lines(path: epath.Path) -> list[dict]:
    """Returns the objects of a file of JSON lines, without a line that a kill cut short."""
    lines = []
    for line in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            lines.append(json.loads(line))
    return lines


class LogFiles:
    """The log files of a run. The thread writes them, so that training does not wait for storage.

    A file on a disk grows by each line at once. An object in a bucket cannot grow: it is replaced
    as a whole. The lines of STEPS are therefore in one object for each epoch there.

    Drops the lines after the step at which the run resumes.

    Attributes:
        steps: the lines about the steps of the epoch in which the run resumes, or of all epochs.

    Args:
        workdir: the run's working directory.
        step: updates made so far.
        epochs: the lines about epochs to keep.

    Raises:
        InputError: the directory cannot be written to.
    """

    def __init__(self, workdir: epath.Path, step: int, epochs: list[dict]):
        self._workdir = workdir
        self._is_in_bucket = is_remote(workdir)
        self._texts: dict[epath.Path, str] = {}  # to append; in a bucket, whole objects
        self._changed: set[epath.Path] = set()
        self._events: list[bytes] = []
        self._records: tf.io.TFRecordWriter | None = None
        self._last_write = 0.0
        self._has_reported = False
        self._thread = ThreadPoolExecutor(1, "log")
        self._failure: Exception | None = None
        self._epoch: Future | None = None
        with self._explain_errors():
            if (workdir / EPOCHS).exists():
                self._keep(workdir / EPOCHS, epochs)
            self.steps = self._open_parts(step) if self._is_in_bucket else self._open_steps(step)
        # This event makes TensorBoard drop what an earlier start logged after this step.
        start = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
        self.add_event(step=step, session_log=start)

    def _open_steps(self, step: int) -> list[dict]:
        path = self._workdir / STEPS
        lines = [line for line in read_lines(path) if line["step"] <= step]
        if path.exists():
            self._keep(path, lines)
        return lines

    def _open_parts(self, step: int) -> list[dict]:
        for path in reversed(find_entries(self._workdir / PARTS, "*.jsonl")):
            lines = [line for line in read_lines(path) if line["step"] <= step]
            if lines:
                self._keep(path, lines)
                return lines
            path.unlink()
        return []

    def _keep(self, path: epath.Path, lines: list[dict]) -> None:
        text = "".join(map(_json_line, lines))
        write_atomically(path, text)
        if self._is_in_bucket:
            self._texts[path] = text

    def add_steps(self, line: dict) -> None:
        """Adds a line about some steps."""
        part = f"{PARTS}/{line['epoch']:05d}.jsonl" if self._is_in_bucket else STEPS
        self._add(self._workdir / part, line)
        if not self._is_in_bucket or time.monotonic() - self._last_write > INTERVAL:
            self.write()

    def add_epoch(self, line: dict) -> None:
        """Adds a line about an epoch."""
        self._add(self._workdir / EPOCHS, line)
        self._epoch = self.write()
        if self._is_in_bucket:
            self.submit(self._close_events)  # the next epoch's events are another object

    def wait_for_epoch(self) -> None:
        """Waits for the last line about an epoch. Raises InputError as `check` does."""
        if self._epoch:
            self._epoch.result()
        self.check()

    def check(self) -> None:
        """Raises InputError if the thread could not write something."""
        if self._failure is not None:
            with self._explain_errors():
                raise self._failure

    def _add(self, path: epath.Path, line: dict) -> None:
        self._texts[path] = self._texts.get(path, "") + _json_line(line)
        self._changed.add(path)

    def add_event(self, **fields: object) -> None:
        """Adds an event to TensorBoard's log, written with the next line."""
        event = tf.compat.v1.Event(wall_time=time.time(), **fields)
        self._events.append(event.SerializeToString())

    def write(self) -> Future | None:
        """Lets the thread write what was added."""
        texts = {path: self._texts[path] for path in self._changed}
        if not self._is_in_bucket:
            self._texts.clear()
        if not texts:
            return None
        events, self._events = self._events, []
        self._changed.clear()
        self._last_write = time.monotonic()
        return self.submit(lambda: self._write(texts, events))

    def _write(self, texts: dict[epath.Path, str], events: list[bytes]) -> None:
        for path, text in texts.items():
            path.parent.mkdir(exist_ok=True)
            with path.open("w" if self._is_in_bucket else "a") as file:
                file.write(text)
        with self._reporting_errors():
            if self._records is None:
                self._records = self._open_events()
            for event in events:
                self._records.write(event)
            self._records.flush()

    def _open_events(self) -> tf.io.TFRecordWriter:
        directory = self._workdir / "tensorboard"
        directory.mkdir(exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns() // 1000}.{socket.gethostname()}"
        records = tf.io.TFRecordWriter(str(directory / name))
        version = tf.compat.v1.Event(wall_time=time.time(), file_version="brain.Event:2")
        records.write(version.SerializeToString())
        return records

    def _close_events(self) -> None:
        with self._reporting_errors():
            if self._records is not None:
                self._records.close()
            self._records = None

    def submit(self, job: Callable[[], None]) -> Future:
        """Lets the thread run a job after the earlier ones, if these succeed."""
        return self._thread.submit(self._run, job)

    def _run(self, job: Callable[[], None]) -> None:
        if self._failure is None:
            try:
                job()
            except Exception as error:
                self._failure = error

    def flush(self) -> None:
        """Waits until everything is written. Raises InputError as `check` does."""
        self.write()
        self.submit(self._close_events).result()
        self.check()

    def close(self) -> None:
        """Does the same, and ends the thread."""
        try:
            self.flush()
        finally:
            self._thread.shutdown()

    @contextlib.contextmanager
    def _explain_errors(self) -> Iterator[None]:
        try:
            yield
        except file_errors() as error:
            raise InputError(
                f"cannot write to {self._workdir}: {one_line(error)}; {how_to_resume(error)}"
            ) from error

    @contextlib.contextmanager
    def _reporting_errors(self) -> Iterator[None]:
        """Reports the first error of TensorBoard's log, which does not end the training."""
        try:
            yield
        except file_errors() as error:
            if not self._has_reported:
                say(f"warning: TensorBoard's log cannot be written: {with_advice(error)}")
            self._has_reported = True


def _json_line(line: dict) -> str:
    return json.dumps(line) + "\n"
