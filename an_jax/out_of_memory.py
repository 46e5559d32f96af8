"""Detection of, and recovery from, a lack of memory in JAX and PyTorch."""

import contextlib
import gc
import sys
from collections.abc import Iterator

import jax

from an_jax.errors import InputError, one_line

# XLA and CUDA; PyTorch's allocators for CPUs (Linux and macOS, Windows); cuBLAS and cuDNN.
_MESSAGES = (
    "resource_exhausted",
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "cudnn_status_internal_error_device_allocation_failed",
)


def who_ran_out(error: Exception) -> str | None:
    """Returns "JAX", "PyTorch" or "Python" if `error` reports a lack of memory, else None."""
    if isinstance(error, MemoryError):
        return "Python"
    message = str(error).lower()
    if not isinstance(error, RuntimeError) or not any(part in message for part in _MESSAGES):
        return None
    return "JAX" if isinstance(error, jax.errors.JaxRuntimeError) else "PyTorch"


@contextlib.contextmanager
def explain_lack_of_memory(flag: str, size: int) -> Iterator[None]:
    """Turns a lack of device memory into an InputError that names the flag to lower.

    Args:
        flag: the flag that decides how much memory is needed.
        size: its value.
    """
    try:
        yield
    except Exception as error:
        if who_ran_out(error) != "JAX":
            raise
        raise InputError(
            f"out of device memory: lower {flag}, which is {size} ({one_line(error, limit=200)})"
        ) from error


def free_memory() -> None:
    """Frees unreachable objects and the GPU memory that PyTorch caches."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
