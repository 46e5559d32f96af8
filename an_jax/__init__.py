"""Attentive Normalization and AOGNets in JAX/Flax: models, weights, evaluation, training."""

from typing import TYPE_CHECKING

from an_jax.zoo import create_model, list_models

if TYPE_CHECKING:
    from an_jax.checkpoint import load_model
    from an_jax.classifier import load_classifier

__all__ = ["create_model", "list_models", "load_classifier", "load_model"]


def __getattr__(name: str) -> object:
    # Orbax and TensorFlow are imported when needed. Without them, an_jax imports faster.
    if name == "load_model":
        from an_jax.checkpoint import load_model

        return load_model
    if name == "load_classifier":
        from an_jax.classifier import load_classifier

        return load_classifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
