"""Functions run in processes of their own."""

import multiprocessing
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def run_in_process(
    function: Callable[..., T], *arguments: object, cores: Iterable[int] | None = None
) -> T:
    """Calls a function in a new process, which shares neither devices nor threads with this one.

    Args:
        function, arguments: must be picklable.
        cores: cores that the process may use; None for all.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        if cores is not None:
            pool.submit(os.sched_setaffinity, 0, cores).result()
        return pool.submit(function, *arguments).result()
