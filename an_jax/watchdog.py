"""Ends a process that makes no progress, so that the job can be started again.

Collective operations wait for ever if a host is lost. Every process then says what it waits for.
"""

import contextlib
import faulthandler
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator

import jax

EXIT_STATUS = 75  # EX_TEMPFAIL: try again
GRACE = 5.0  # seconds in which the other processes of the job can say what they wait for
_last: tuple[float, str] | None = None  # when there was progress, and what


@contextlib.contextmanager
def watchdog(minutes: float) -> Iterator[None]:
    """Ends this process if the body makes no progress for so many minutes; 0 means never.

    Waits for the first progress: lists of files and compilation may take long.
    """
    global _last
    _last = None
    ended = threading.Event()
    if minutes:
        threading.Thread(target=_watch, args=(60 * minutes, ended), daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def note_progress(what: str) -> None:
    """Notes that something has been done; `what` is printed if nothing follows."""
    global _last
    _last = time.monotonic(), what


def _watch(limit: float, ended: threading.Event) -> None:
    last = None
    while last is None or time.monotonic() - last[0] < limit:
        waited = 0.0 if last is None else time.monotonic() - last[0]
        if ended.wait(max(limit - waited, 0.0)):
            return
        last = _last
    print(
        f"error: no progress for {limit / 60:.3g} minutes since {last[1]}: process "
        f"{jax.process_index()} of {jax.process_count()} on {socket.gethostname()} ends. Run the "
        "same command again to resume. What each thread waits for:",
        file=sys.stderr,
    )
    faulthandler.dump_traceback(sys.stderr)
    if jax.process_count() > 1:
        # If a process exits, jax can abort the others; if process 0 exits, at once.
        time.sleep(GRACE + (jax.process_index() == 0))
    os._exit(EXIT_STATUS)
