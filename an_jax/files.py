"""Path handling: absolute paths, checks of destinations, atomic writes."""

import contextlib
import fnmatch
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from etils import epath

from an_jax.errors import InputError, file_errors, with_advice

_REPLACED = ".replaced-by-an_jax"  # ends the hidden name of a directory that is being replaced


def absolute(path: str | os.PathLike) -> epath.Path:
    """Returns the absolute path, with ~ expanded. gs://bucket/run is absolute already.

    Raises:
        InputError: the path has another scheme.
    """
    try:
        result = epath.Path(path).expanduser()
    except KeyError as error:
        raise InputError(f"{path}: paths are local, or in a bucket (gs://BUCKET/PATH)") from error
    return result if result.is_absolute() else result.absolute()


def is_remote(path: epath.Path) -> bool:
    """Returns whether an absolute path is in a bucket."""
    return "://" in os.fspath(path)


def find_entries(directory: epath.Path, pattern: str) -> list[epath.Path]:
    """Returns the sorted entries of a directory with matching names; none if it does not exist.

    epath's glob would read brackets in the directory's own name as part of the pattern.
    """
    entries = directory.iterdir() if directory.is_dir() else ()
    return sorted(entry for entry in entries if fnmatch.fnmatchcase(entry.name, pattern))


def write_atomically(path: epath.Path, content: str | bytes) -> None:
    """Writes a file atomically: after a kill it has either the old or the new content.

    Raises:
        OSError: the file cannot be written.
    """
    content = content.encode() if isinstance(content, str) else content
    if is_remote(path):  # an object is replaced as a whole
        path.write_bytes(content)
        return
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


def make_directory(path: epath.Path) -> None:
    """Makes a directory, if there is none, and checks that files can be written there.

    Raises:
        InputError: they cannot.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / ".writable").write_bytes(b"")
        (path / ".writable").unlink()
    except file_errors() as error:
        raise InputError(f"cannot write to {path}: {with_advice(error)}") from error


def check_destination(
    path: str | os.PathLike,
    *,
    overwrite: bool,
    why_foreign: Callable[[epath.Path], str | None],
) -> None:
    """Checks that `path` does not exist, or is an output of this project that may be overwritten.

    Args:
        path: the file or directory to be written.
        overwrite: whether it may be replaced.
        why_foreign: says why an existing path is not an output of this kind, or returns None if it
            is one.

    Raises:
        InputError: it exists and must not be replaced.
    """
    destination = absolute(path)
    restore_interrupted(destination.parent)
    if not destination.exists():
        return
    if reason := why_foreign(destination):
        raise InputError(f"{path} exists and {reason}; choose another destination")
    if not overwrite:
        raise InputError(f"{path} exists already; give --overwrite to replace it")
    if is_remote(destination) and destination.is_dir():
        raise InputError(  # since a bucket cannot rename a directory in one step
            f"{path} exists already, and --overwrite cannot replace a directory in a bucket: "
            "delete it first, or choose another destination"
        )


def why_not_png(path: epath.Path) -> str | None:
    """Says that a path is not a PNG. Returns None if it is one."""
    is_png = not path.is_dir() and path.read_bytes().startswith(b"\x89PNG")
    return None if is_png else "is not a PNG"


@contextlib.contextmanager
def replacing(path: str | os.PathLike, *, last: str = "") -> Iterator[epath.Path]:
    """Yields a temporary local path whose content replaces `path` on success.

    If the process dies at any point, `path` has the old or the new content, if need be after
    `restore_interrupted`.

    Args:
        path: the file or directory to write. A directory in a bucket must not exist.
        last: name of the file that makes a directory valid; in a bucket it is written last.

    Raises:
        InputError: the path cannot be written.
    """
    destination = absolute(path)
    write = (
        _uploading(destination, last) if is_remote(destination) else _replacing_locally(destination)
    )
    try:
        with write as temporary:
            yield temporary
    except InputError:
        raise
    # A full disk raises any of these.
    except file_errors(RuntimeError, ValueError) as error:
        raise InputError(f"cannot write {destination}: {with_advice(error)}") from error


@contextlib.contextmanager
def _replacing_locally(path: epath.Path) -> Iterator[epath.Path]:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    restore_interrupted(path.parent)
    try:
        yield temporary
        if path.is_dir():
            _replace_directory(path, temporary)
        else:
            os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def _uploading(path: epath.Path, last: str) -> Iterator[epath.Path]:
    with tempfile.TemporaryDirectory() as directory:
        temporary = epath.Path(directory) / path.name
        yield temporary
        files = [parent / name for parent, _, names in temporary.walk() for name in names]
        for file in sorted(files or [temporary], key=lambda file: file.name == last):
            file.copy(path / file.relative_to(temporary) if files else path, overwrite=True)


def restore_interrupted(parent: epath.Path) -> None:
    """Gives the directories in `parent` whose replacement was interrupted their names back.

    Prints a line about each.
    """
    if is_remote(parent):
        return  # nothing is renamed there
    for old in Path(parent).glob(f".*{_REPLACED}"):  # epath would read brackets in `parent`
        path = old.with_name(old.name.removeprefix(".").removesuffix(_REPLACED))
        with contextlib.suppress(OSError):  # a read-only disk
            if not path.exists():
                os.replace(old, path)
                print(f"restored {path}, whose replacement was interrupted", file=sys.stderr)


def _replace_directory(path: epath.Path, new: epath.Path) -> None:
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
