"""Errors that users can fix. The message says what is wrong, where, and what to do."""

import os
import re
import sys
from collections.abc import Callable, Iterable


class InputError(ValueError):
    """Bad input: a missing or damaged file, a wrong name, shape or count.

    The commands print the message after "error:" and exit with status 1, without a traceback; see
    `exit_status`.
    """


class NotThereError(InputError):
    """A data set is missing altogether."""


# Texts and types of file system errors -> what to do about them. The first match counts.
_ADVICE = {
    r"no space left|quota exceeded": "make room",
    r"file too large": "raise the limit on the size of files (ulimit -f)",
    r"unauthenticated|credentials|anonymous caller": "log in, for example with `gcloud auth "
    "application-default login`",
    r"bucket .*(not exist|not found)|no such bucket": "create the bucket or correct its name",
    r"permission ?denied|not permitted|read-only|forbidden": "change the permissions",
    r"unavailable|deadline|time(d )?out|connect|resolve host|unreachable|no route|aborted|stale|"
    r"input/output": "wait until the network and the storage work",
}
_PAGE = re.compile(r""" with body '(?:.*?"message": ?"(.*?)")?.*'""")


def file_errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """Returns the types of errors of file systems, and others, for `except`.

    These are OSError and, where TensorFlow is imported, its OpError.
    """
    tf = sys.modules.get("tensorflow")
    return (OSError, tf.errors.OpError, *others) if tf else (OSError, *others)


def advise(error: Exception) -> str:
    """Says what to do about an error of a file system, in the imperative; "" if unknown."""
    text = f"{type(error).__name__} {error}".lower()
    text = re.sub(r"\S*/(?!output)\S*", "", text)  # paths, which may have any words
    return next((advice for pattern, advice in _ADVICE.items() if re.search(pattern, text)), "")


def with_advice(error: Exception, reason: str = "") -> str:
    """Returns a reason, by default the error's message, followed by what to do about it."""
    return "; ".join(filter(None, (reason or one_line(error), advise(error))))


def one_line(error: Exception, limit: int | None = None) -> str:
    """Returns an error's message on one line, cut off after `limit` characters.

    TensorFlow quotes the whole page that a bucket's server sends; only the page's message is kept.
    """
    text = " ".join(str(error).split())
    return _PAGE.sub(lambda page: f" ({page[1]})" if page[1] else "", text)[:limit]


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

    The status is what the command returns, with None as 0, 1 after an InputError or an error of a
    file system, or 130 after Ctrl-C.
    """
    try:
        check_utf8(sys.argv)
        return command() or 0
    except InputError as error:
        message = str(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130  # as shells report it
    except file_errors() as error:
        message = with_advice(error)
    print(f"error: {message}", file=sys.stderr)
    return 1
