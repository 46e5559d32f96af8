"""Path handling: absolute paths, checks of destinations, atomic writes."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from etils import epath

from an_jax.errors import InputError


def write_atomically(path: epath.Path, content: str | bytes) -> None:
    """Writes a file atomically: after a kill it has either the old or the new content.

    Raises:
        OSError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    temporary.replace(path)


def absolute(path: str | os.PathLike) -> epath.Path:
    """Returns the absolute path. A URL such as gs://bucket/run is absolute already."""
    result = epath.Path(path)
    return result if result.is_absolute() else result.absolute()


def check_destination(
    path: str | os.PathLike,
    *,
    overwrite: bool,
    why_foreign: Callable[[Path], str | None] | None = None,
) -> None:
    """Checks that `path` does not exist, or is an output of this project that may be overwritten.

    Args:
        path: the file or directory to be written.
        overwrite: whether it may be replaced.
        why_foreign: says why an existing path is not an output of this kind, or returns None if it
            is one; by default every file may be replaced.

    Raises:
        InputError: it exists and must not be replaced.
    """
    path = Path(path)
    if not path.exists():
        return
    reason = why_foreign(path) if why_foreign else None
    if why_foreign is None and not path.is_file():
        reason = "is not a file"
    if reason:
        raise InputError(f"{path} exists and {reason}; choose another destination")
    if not overwrite:
        raise InputError(f"{path} exists already; give --overwrite to replace it")


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path beside `path`, which replaces `path` on success.

    Raises:
        InputError: the path cannot be written.
    """
    path = Path(path).absolute()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if path.is_dir():  # a directory cannot be replaced in one step
            os.replace(path, old)
        os.replace(temporary, path)
        shutil.rmtree(old, ignore_errors=True)
    except InputError:
        raise
    except (OSError, RuntimeError, ValueError) as error:  # a full disk raises any of the three
        raise InputError(f"cannot write {path}: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        with contextlib.suppress(OSError):
            temporary.unlink()
