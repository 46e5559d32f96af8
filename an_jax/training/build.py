"""Builds what a training run needs from its configuration."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from flax import nnx

from an_jax import functional, parallel, zoo
from an_jax.checkpoint import ModelCard, restore_weights
from an_jax.data.sets.train_sets import TrainSet
from an_jax.data.train_pipeline import steps_per_epoch
from an_jax.errors import InputError
from an_jax.training.config import eval_batch_size
from an_jax.training.optimizer import cosine_schedule, sgd
from an_jax.training.step import TrainState, init_state, make_train_step
from an_jax.training.validation import Validation


class Training(NamedTuple):
    """The parts of a training run.

    Attributes:
        schedule: the learning rate of each update.
        step: the jitted training step.
        state: the state before the first step, on every device.
        validation: scores weights on the validation images.
    """

    schedule: optax.Schedule
    step: jax.stages.Wrapped
    state: TrainState
    validation: Validation


def build(
    config: ml_collections.ConfigDict,
    card: ModelCard,
    train_set: TrainSet,
    mesh: jax.sharding.Mesh,
    num_micro_batches: int = 1,
    init_from: str = "",
) -> Training:
    """Builds the parts of a training run.

    Args:
        config: the configuration.
        card: the model's card.
        train_set: the images.
        mesh: all devices.
        num_micro_batches: parts of a device's share of a batch; see `make_train_step`.
        init_from: checkpoint whose weights replace the random ones; "" for none.

    Raises:
        InputError: init_from is missing, damaged, or a checkpoint of another architecture.
    """
    model = zoo.create_model(
        config.model,
        num_classes=card.num_classes,
        dtype=jnp.dtype(config.dtype),
        rngs=nnx.Rngs(config.seed),
    )
    split = functional.split(model)
    if init_from:
        split = initial_weights(split, init_from, config.model)
    schedule = cosine_schedule(
        config.learning_rate * config.batch_size / 256,
        steps_per_epoch(len(train_set.source), config.batch_size),
        config.num_epochs,
        config.warmup_epochs,
    )
    optimizer = sgd(schedule, config.momentum, config.weight_decay)
    step = make_train_step(
        split.definition,
        optimizer,
        mesh,
        card.preprocessing,
        card.num_classes,
        num_micro_batches=num_micro_batches,
        label_smoothing=config.label_smoothing,
        mixup_alpha=config.mixup,
        seed=config.seed,
    )
    state = parallel.replicate(init_state(split, optimizer), mesh)
    validation = Validation(split.definition, card, train_set, eval_batch_size(config), mesh)
    return Training(schedule, step, state, validation)


def make_card(config: ml_collections.ConfigDict, train_set: TrainSet) -> ModelCard:
    """Returns the card of the model that this training makes."""
    preprocessing = dataclasses.replace(
        zoo.get_architecture(config.model).preprocessing, image_size=config.image_size
    )
    source = {"trained_on": config.dataset, "num_images": len(train_set.source)}
    if train_set.classes:
        source["classes"] = list(train_set.classes)
    return ModelCard(config.model, train_set.num_classes, preprocessing, source)


def initial_weights(split: functional.Split, checkpoint: str, model: str) -> functional.Split:
    """Returns a new model with a checkpoint's weights.

    The head keeps its new weights if the checkpoint has another number of classes.

    Args:
        split: the new model.
        checkpoint: directory of a converted checkpoint or of a training run.
        model: name of the architecture; the checkpoint must have the same.

    Raises:
        InputError: the checkpoint is missing, damaged, or of another architecture.
    """
    card = ModelCard.read(checkpoint)
    if card.model != model:
        raise InputError(f"init_from: {checkpoint} holds a {card.model}, not a {model}")
    expected = functional.split(zoo.abstract_model(model, num_classes=card.num_classes))
    weights = restore_weights(checkpoint, expected.params, expected.batch_stats)
    # NumPy arrays: `parallel.replicate` copies them to every device.
    restored = jax.tree.map(np.asarray, weights)
    params = {
        path: restored["params"][path] if expected.params[path].shape == new.shape else new
        for path, new in split.params.items()
    }
    return functional.Split(split.definition, params, restored["batch_stats"])
