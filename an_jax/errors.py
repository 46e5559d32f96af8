"""The errors that a user can mend: the message says what is wrong and what to do."""

import sys
from collections.abc import Callable


class InputError(ValueError):
    """Bad input: a missing or damaged file, a wrong name, shape or count.

    The commands print its message after "error:" and exit with status 1, without a traceback; see
    `exit_status`.
    """


class NotThereError(InputError):
    """A data set that is not there at all."""


def exit_status(command: Callable[[], int | None]) -> int:
    """Runs a command; returns its exit status: what it returns, or 0, or 1 after an InputError."""
    try:
        return command() or 0
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
