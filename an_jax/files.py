"""Path handling: absolute paths, checks of destinations, atomic writes."""

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from etils import epath

from an_jax.errors import InputError

_REPLACED = ".replaced-by-an_jax"  # ends the hidden name of a directory that is being replaced


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
    restore_interrupted(path.absolute().parent)
    if not path.exists():
        return
    reason = why_foreign(path) if why_foreign else None
    if why_foreign is None and not path.is_file():
        reason = "is not a file"
    if reason:
        raise InputError(f"{path} exists and {reason}; choose another destination")
    if not overwrite:
        raise InputError(f"{path} exists already; give --overwrite to replace it")


def why_not_png(path: Path) -> str | None:
    """Says that a path is not a PNG. Returns None if it is one."""
    is_png = path.is_file() and path.read_bytes().startswith(b"\x89PNG")
    return None if is_png else "is not a PNG"


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path beside `path`, which replaces `path` on success.

    If the process dies at any point, `path` has the old or the new content, if need be after
    `restore_interrupted`.

    Raises:
        InputError: the path cannot be written.
    """
    path = Path(path).absolute()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        restore_interrupted(path.parent)
        yield temporary
        if path.is_dir():
            _replace_directory(path, temporary)
        else:
            os.replace(temporary, path)
    except InputError:
        raise
    except (OSError, RuntimeError, ValueError) as error:  # a full disk raises any of the three
        raise InputError(f"cannot write {path}: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        with contextlib.suppress(OSError):
            temporary.unlink()


def restore_interrupted(parent: Path) -> None:
    """Gives the directories in `parent` whose replacement was interrupted their names back.

    Prints a line about each.
    """
    for old in parent.glob(f".*{_REPLACED}"):
        path = parent / old.name.removeprefix(".").removesuffix(_REPLACED)
        with contextlib.suppress(OSError):  # a read-only disk
            if not path.exists():
                os.replace(old, path)
                print(f"restored {path}, whose replacement was interrupted", file=sys.stderr)


def _replace_directory(path: Path, new: Path) -> None:
    """Replaces a directory, which takes two steps: `os.replace` needs an empty destination."""
    old = path.with_name(f".{path.name}{_REPLACED}")
    shutil.rmtree(old, ignore_errors=True)
    os.replace(path, old)
    try:
        os.replace(new, path)
    except BaseException:
        restore_interrupted(path.parent)
        raise
    shutil.rmtree(old, ignore_errors=True)
