"""Errors that users can fix. The message says what is wrong, where, and what to do."""

import os
import sys
from collections.abc import Callable, Iterable


class InputError(ValueError):
    """Bad input: a missing or damaged file, a wrong name, shape or count.

    The commands print the message after "error:" and exit with status 1, without a traceback; see
    `exit_status`.
    """


class NotThereError(InputError):
    """A data set is missing altogether."""


def one_line(error: Exception, limit: int | None = None) -> str:
    """Returns an error's message on one line, cut off after `limit` characters."""
    return " ".join(str(error).split())[:limit]


def check_utf8(names: Iterable[str]) -> None:
    """Raises InputError on the name of a file that is not UTF-8; TensorFlow and JSON require it."""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            message = f"the name {os.fsencode(name)!r} is not UTF-8: rename the file or directory"
            raise InputError(message) from error


def exit_status(command: Callable[[], int | None]) -> int:
    """Runs a command and returns its exit status.

    The status is what the command returns, with None as 0, 1 after an InputError, or 130 after
    Ctrl-C.
    """
    try:
        check_utf8(sys.argv)
        return command() or 0
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130  # as shells report it
