"""The errors that a user can mend: the message says what is wrong and what to do."""


class InputError(ValueError):
    """Bad input: a missing or damaged file, a wrong name, shape or count.

    The commands print its message after "error:" and exit with status 1, without a traceback.
    """


class NotThereError(InputError):
    """A data set that is not there at all."""
