"""Explains a lack of device memory."""

import contextlib
from collections.abc import Iterator

from an_jax.errors import InputError, one_line
from an_jax.out_of_memory import who_ran_out


@contextlib.contextmanager
def explain_lack_of_memory(field: str, size: int) -> Iterator[None]:
    """Turns a lack of device memory into an InputError that names the field to lower.

    Args:
        field: the field of the configuration that decides how much memory is needed.
        size: its value.
    """
    try:
        yield
    except Exception as error:
        if who_ran_out(error) != "JAX":
            raise
        raise InputError(
            f"out of device memory: lower --config.{field}, which is {size} "
            f"({one_line(error, limit=200)})"
        ) from error
