"""Attentive Normalization and AOGNets in JAX/Flax: models, weights, evaluation, training."""

from typing import TYPE_CHECKING

from an_jax.zoo import create_model, list_models

if TYPE_CHECKING:
    from an_jax.checkpoint import load_model

__all__ = ["create_model", "list_models", "load_model"]


def __getattr__(name: str) -> object:
    # Orbax is imported with load_model only. Without it, an_jax imports three times faster.
    if name == "load_model":
        from an_jax.checkpoint import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
