"""The model zoo: architectures by name, released checkpoints, the cost of a model."""

from an_jax.zoo.architectures import (
    ARCHITECTURES,
    INTERPOLATIONS,
    OTHER_ARCHITECTURES,
    Architecture,
    Preprocessing,
    ShapeOnlyRngs,
    abstract_model,
    create_model,
    get_architecture,
    list_models,
)

__all__ = [
    "ARCHITECTURES",
    "INTERPOLATIONS",
    "OTHER_ARCHITECTURES",
    "Architecture",
    "Preprocessing",
    "ShapeOnlyRngs",
    "abstract_model",
    "create_model",
    "get_architecture",
    "list_models",
]
