"""Attentive Normalization and AOGNets in JAX/Flax: models, weights, evaluation, training."""

from an_jax.zoo import create_model, list_models

__all__ = ["create_model", "list_models", "load_model"]


def __getattr__(name):
    # Orbax is imported only when a checkpoint is: models alone start in a third of the time.
    if name == "load_model":
        from an_jax.checkpoint import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
