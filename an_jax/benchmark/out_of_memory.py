"""How JAX and PyTorch say that memory does not suffice, and what gives it back."""

import gc
import sys

import jax

# XLA and CUDA; PyTorch's allocators for CPUs (Linux and macOS, Windows); cuBLAS and cuDNN.
_SAYINGS = (
    "resource_exhausted",
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "cudnn_status_internal_error_device_allocation_failed",
)


def who_ran_out(error: Exception) -> str | None:
    """Whether that is what an error says: "JAX", "PyTorch" or "Python"; None of other errors."""
    if isinstance(error, MemoryError):
        return "Python"
    said = str(error).lower()
    if not isinstance(error, RuntimeError) or not any(words in said for words in _SAYINGS):
        return None
    return "JAX" if isinstance(error, jax.errors.JaxRuntimeError) else "PyTorch"


def free_memory() -> None:
    """Frees what nothing refers to, and what PyTorch keeps of a GPU for later."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
