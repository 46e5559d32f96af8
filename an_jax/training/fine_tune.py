"""Starting from the weights of a checkpoint, for the same or for other classes."""

import numpy as np

from an_jax import functional, zoo
from an_jax.checkpoint import ModelCard, restore_weights
from an_jax.errors import InputError


def initial_weights(split: functional.Split, checkpoint: str, model: str) -> functional.Split:
    """A new model with a checkpoint's weights; with another number of classes all but the head's.

    Args:
        split: the new model.
        checkpoint: directory of a converted checkpoint or of a training run.
        model: name of the architecture, which must be the checkpoint's.

    Raises:
        InputError: no checkpoint there, a damaged one, or one of another architecture.
    """
    card = ModelCard.read(checkpoint)
    if card.model != model:
        raise InputError(f"init_from: {checkpoint} holds a {card.model}, not a {model}")
    theirs = functional.split(zoo.abstract_model(model, num_classes=card.num_classes))
    weights = restore_weights(checkpoint, theirs.params, theirs.batch_stats)
    params = {
        path: np.asarray(weights["params"][path]) if theirs.params[path].shape == new.shape else new
        for path, new in split.params.items()
    }
    batch_stats = {path: np.asarray(value) for path, value in weights["batch_stats"].items()}
    return functional.Split(split.definition, params, batch_stats)
