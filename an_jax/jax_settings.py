"""Settings of Python and JAX that the commands share."""

import atexit
import gc
import os

import jax

from an_jax.files import absolute


def collect_garbage_rarely() -> None:
    """Lets 50 000 objects accumulate before Python's garbage collector runs; at exit, it does not.

    Imports and tracing create many objects that stay, which the collector would visit again and
    again: a sixth of the time that a command needs to start, and more than a second at its end.
    """
    gc.set_threshold(50_000)
    atexit.register(gc.freeze)


def enable_compilation_cache(output: str | os.PathLike) -> None:
    """Caches compiled programs in `compilation_cache` beside the output.

    A cache that the user has set, by JAX_COMPILATION_CACHE_DIR or in jax.config, is kept.
    """
    if jax.config.values["jax_compilation_cache_dir"] is None:
        path = absolute(output)
        is_whole_bucket = str(path).startswith("gs://") and str(path).count("/") == 2
        cache = (path if is_whole_bucket else path.parent) / "compilation_cache"
        jax.config.update("jax_compilation_cache_dir", str(cache))


def set_matmul_precision(dtype: str) -> None:
    """Sets the precision of matrix products to the compute dtype, "float32" or "bfloat16"."""
    if dtype == "float32":
        # By default a GPU would multiply in TF32 and a TPU in bfloat16.
        jax.config.update("jax_default_matmul_precision", "highest")


def matmul_precision() -> str | None:
    """Returns jax's default precision of matrix products; None if it is not set."""
    return jax.config.values["jax_default_matmul_precision"]
