"""One run at a time in a working directory.

Process 0 of a run holds RUN/.lock, which says who holds it. On a disk, also of the network, the
kernel locks the file and unlocks it when the process ends, however it ends. Buckets, and disks that
have no locks, get a lease: its holder rewrites the file again and again, and a file that stays the
same has expired.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import threading
import time
import uuid

from etils import epath

from an_jax import parallel
from an_jax.errors import InputError, file_errors, with_advice
from an_jax.files import is_remote, write_atomically
from an_jax.training.messages import say

RENEWAL, EXPIRY, SETTLING = 20.0, 70.0, 3.0  # seconds
_NO_LOCKS = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS}


class RunLock:
    """A context manager that holds the lock of a working directory, which it makes.

    Every process enters it; process 0 takes the lock.

    Args:
        workdir: absolute path of the run's working directory.

    Raises:
        InputError: on entering, if another run holds the lock or the directory cannot be written.
    """

    def __init__(self, workdir: epath.Path):
        self._workdir, self._path = workdir, workdir / ".lock"
        self._token = uuid.uuid4().hex  # tells the lock of this run from those of others
        self._holder = {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            "token": self._token,
        }
        self._descriptor: int | None = None
        self._renewing: threading.Thread | None = None
        self._is_released = threading.Event()
        self._error: InputError | None = None

    def __enter__(self) -> "RunLock":
        parallel.on_main_process(self._take)
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_released.set()
        if self._renewing is not None:
            self._renewing.join()
        with contextlib.suppress(*file_errors()):
            if self._descriptor is not None or self._has_lease():
                self._path.unlink()
        if self._descriptor is not None:
            os.close(self._descriptor)

    def check(self) -> None:
        """Raises InputError if another run has taken the lease."""
        if self._error is not None:
            raise self._error

    def _take(self) -> None:
        try:
            self._workdir.mkdir(parents=True, exist_ok=True)
            self._check_foreign()
            if is_remote(self._workdir) or not self._take_lock():
                self._take_lease()
        except file_errors() as error:
            raise InputError(f"cannot write to {self._workdir}: {with_advice(error)}") from error

    def _check_foreign(self) -> None:
        content = self._read()
        if content and '"token"' not in content:
            raise InputError(f"{self._path} is no lock of a training run; choose another --workdir")

    def _take_lock(self) -> bool:
        """Locks the file. Returns False if the file system has no locks."""
        while self._descriptor is None:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # A run that was ending may have removed the file in between.
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(descriptor), os.stat(self._path)):
                        self._descriptor = os.dup(descriptor)
            except BlockingIOError as error:
                raise self._refuse() from error
            except OSError as error:
                if error.errno in _NO_LOCKS:
                    return False
                raise
            finally:
                os.close(descriptor)
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, json.dumps(self._holder).encode())
        return True

    def _take_lease(self) -> None:
        self._wait_for_expiry()
        self._write_lease()
        time.sleep(SETTLING)  # of two runs that write at the same time, the second one wins
        if not self._has_lease():
            raise self._refuse()
        self._renewing = threading.Thread(target=self._renew, daemon=True)
        self._renewing.start()

    def _wait_for_expiry(self) -> None:
        """Waits for a lease to expire. Raises InputError if its holder renews it."""
        first = self._read()
        if first:
            say(
                f"{self._workdir} was used by {_describe(first)}; waiting {EXPIRY:.0f} s to see "
                "whether that still runs"
            )
        end = time.monotonic() + EXPIRY
        while first and time.monotonic() < end:
            time.sleep(SETTLING)
            now = self._read()
            if not now:
                return
            if now != first:
                raise self._refuse()

    def _renew(self) -> None:
        while not self._is_released.wait(RENEWAL):
            with contextlib.suppress(Exception):  # the next renewal may succeed
                if not self._has_lease():
                    holder = _describe(self._read())
                    self._error = InputError(f"{self._workdir} was taken over by {holder}")
                    return
                self._write_lease()

    def _write_lease(self) -> None:
        content = json.dumps(self._holder | {"renewed": time.time()})
        write_atomically(self._path, content)

    def _has_lease(self) -> bool:
        return self._token in self._read()

    def _read(self) -> str:
        """Returns the content of the file, "" without one."""
        try:
            return self._path.read_text()
        except FileNotFoundError:
            return ""

    def _refuse(self) -> InputError:
        return InputError(
            f"{self._workdir} is used by another run: {_describe(self._read())}. Stop it, or "
            "choose another --workdir"
        )


def _describe(content: str) -> str:
    """Describes the holder of a lock by the content of its file."""
    try:
        holder = json.loads(content)
        return f"process {holder['process']} on {holder['host']}, since {holder['since']}"
    except (ValueError, TypeError, KeyError):
        return "an unknown process"
