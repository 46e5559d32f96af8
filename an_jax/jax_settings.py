"""What the commands set in jax before they compute."""

import os

import jax

from an_jax.files import absolute


def keep_compiled(output: str | os.PathLike) -> None:
    """Keeps compiled programs for the next start, in `compilation_cache` beside the output.

    A place that the user has named, by JAX_COMPILATION_CACHE_DIR or in jax.config, stays.
    """
    if jax.config.jax_compilation_cache_dir is None:
        cache = absolute(output).parent / "compilation_cache"
        jax.config.update("jax_compilation_cache_dir", str(cache))


def multiply_in(dtype: str) -> None:
    """Makes matrix products as exact as the compute dtype: "float32" or "bfloat16"."""
    if dtype == "float32":
        # Otherwise a GPU would multiply in TF32 and a TPU in bfloat16.
        jax.config.update("jax_default_matmul_precision", "highest")
