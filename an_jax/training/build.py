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
from an_jax.buckets import check_bucket
from an_jax.checkpoint import ModelCard, restore_weights
from an_jax.data.sets.train_sets import TrainSet
from an_jax.data.train_pipeline import steps_per_epoch
from an_jax.errors import InputError
from an_jax.training.config import eval_batch_size
from an_jax.training.eval_sets import EvalSets
from an_jax.training.messages import say
from an_jax.training.optimizer import (
    cosine_schedule,
    find_frozen,
    make_optimizer,
    peak_learning_rate,
)
from an_jax.training.step import TrainState, abstract_state, init_state, make_train_step
from an_jax.training.validation import Validation


class Training(NamedTuple):
    """The parts of a training run.

    Attributes:
        schedule: the learning rate of each update.
        step: the jitted training step.
        state: the state before the first step, on every device; abstract if a run resumes.
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
    eval_sets: EvalSets,
    mesh: jax.sharding.Mesh,
    num_micro_batches: int,
    *,
    is_resumed: bool,
) -> Training:
    """Builds the parts of a training run.

    Args:
        config: the configuration.
        card: the model's card.
        train_set: the images.
        eval_sets: further test sets.
        mesh: all devices.
        num_micro_batches: parts of a device's share of a batch; see `make_train_step`.
        is_resumed: whether the state will be restored, so that no weights are needed.

    Raises:
        InputError: config.init_from is missing, damaged, or of another architecture, or
            config.freeze does not fit the model.
    """
    model = zoo.abstract_model(
        config.model, num_classes=card.num_classes, dtype=jnp.dtype(config.dtype)
    )
    split = functional.split(model)
    schedule = cosine_schedule(
        peak_learning_rate(config),
        steps_per_epoch(len(train_set.source), config.batch_size),
        config.num_epochs,
        config.warmup_epochs,
    )
    frozen = find_frozen(config.freeze, split)
    optimizer = make_optimizer(config, schedule, frozen)
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
        frozen=frozen,
        ema_decay=config.ema,
    )
    if frozen:
        num_frozen = functional.count({n: split.params[n] for n in frozen & split.params.keys()})
        say(f"frozen: {num_frozen:,} of {functional.count(split.params):,} parameters")
    has_ema = config.ema > 0
    if is_resumed:
        state = abstract_state(split, optimizer, mesh, has_ema=has_ema)
    else:
        split = _first_split(config, card.num_classes, split)
        state = parallel.replicate(init_state(split, optimizer, has_ema=has_ema), mesh)
    validation = Validation(
        split.definition, card, train_set, eval_batch_size(config), mesh, eval_sets
    )
    return Training(schedule, step, state, validation)


def _first_split(
    config: ml_collections.ConfigDict, num_classes: int, split: functional.Split
) -> functional.Split:
    """Returns an abstract model with its weights before the first step.

    They are random, or those of `init_from`, with a random head for another number of classes.
    """
    check_bucket(config.init_from)
    if not config.init_from or ModelCard.read(config.init_from).num_classes != num_classes:
        model = zoo.create_model(config.model, num_classes=num_classes, rngs=nnx.Rngs(config.seed))
        _, *weights = functional.split(model)
        split = functional.Split(split.definition, *weights)
    return initial_weights(split, config.init_from, config.model) if config.init_from else split


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
