"""Writing a file or a directory whole or not at all, and over nothing that is not ours."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from etils import epath

from an_jax.errors import InputError


def write_whole(path: epath.Path, content: str | bytes) -> None:
    """Writes a file that a kill leaves as it was or as it shall be. Raises OSError."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    temporary.replace(path)


def absolute(path: str | os.PathLike) -> epath.Path:
    """The path from the root; one such as gs:// stays as it is."""
    path = epath.Path(path)
    return path if path.is_absolute() else path.absolute()


def check_destination(
    path: str | os.PathLike, *, overwrite: bool, holds: str | None = None
) -> None:
    """Raises InputError if `path` exists, unless to overwrite a thing of the kind to be written.

    Args:
        path: what is going to be written.
        overwrite: whether it may replace something.
        holds: for a directory, an entry that shows it to be of this kind; None for a file.
    """
    path = Path(path)
    if not path.exists():
        return
    if holds is None and not path.is_file():
        raise InputError(f"{path} exists and is no file: it is left alone")
    if holds is not None and not (path / holds).exists():
        raise InputError(f"{path} exists and holds no {holds}: it is left alone")
    if not overwrite:
        raise InputError(f"{path} exists already; give --overwrite to replace it")


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a temporary path beside `path`; on success what is there takes the place of `path`.

    Raises:
        InputError: it cannot be written.
    """
    path = Path(path).absolute()
    temporary, old = (path.with_name(f".{path.name}.{os.getpid()}.{x}") for x in ("tmp", "old"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if path.is_dir():  # a directory cannot be replaced in one step
            os.replace(path, old)
        os.replace(temporary, path)
        shutil.rmtree(old, ignore_errors=True)
    except InputError:
        raise
    except (OSError, RuntimeError, ValueError) as error:  # a full disk is any of the three
        raise InputError(f"cannot write {path}: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        with contextlib.suppress(OSError):
            temporary.unlink()
