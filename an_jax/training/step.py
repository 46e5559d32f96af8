"""The training step: a pure function of the state and a batch, the same for one device and many."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import PartitionSpec as P

from an_jax import functional
from an_jax.data.normalization import normalize_images
from an_jax.parallel import AXIS
from an_jax.zoo import Preprocessing


class TrainState(NamedTuple):
    """All that a step changes; `step` counts the updates made (int32)."""

    step: jax.Array
    params: functional.Arrays
    batch_stats: functional.Arrays
    opt_state: optax.OptState


class Metrics(NamedTuple):
    """Of one step, before its update: mean cross entropy, and top-1 accuracy in [0, 1]."""

    loss: jax.Array
    top1: jax.Array


def init_state(split: functional.Split, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    step = jnp.zeros((), jnp.int32)
    return TrainState(step, split.params, split.batch_stats, optimizer.init(split.params))


def train_step(definition, optimizer, state: TrainState, images, labels, dropout_key):
    """One update on a device's share of the batch; called under `jax.shard_map`.

    Normalization statistics are those of the device's own images, as in the published training;
    gradients, running statistics and metrics are averaged over the devices.

    Args:
        definition, optimizer: static.
        state: the same on all devices.
        images: normalized [N, H, W, 3], this device's.
        labels: int [N].
        dropout_key: this device's; with None nothing is dropped.

    Returns:
        The new state and the Metrics.
    """

    def loss_fn(params):
        logits, batch_stats = functional.apply_train(
            definition, params, state.batch_stats, images, dropout_key
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        top1 = jnp.mean(jnp.argmax(logits, axis=-1) == labels, dtype=jnp.float32)
        # The loss is the mean over all devices; so are, thereby, its gradients.
        loss, batch_stats, top1 = lax.pmean((jnp.mean(losses), batch_stats, top1), AXIS)
        return loss, (batch_stats, Metrics(loss, top1))

    gradients, (batch_stats, metrics) = jax.grad(loss_fn, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(state.step + 1, params, batch_stats, opt_state), metrics


def make_train_step(
    definition, optimizer, mesh: jax.sharding.Mesh, preprocessing: Preprocessing, seed: int
):
    """The compiled step: (state, uint8 images [N, H, W, 3], labels [N]) -> (state, Metrics).

    The state is donated: use the returned one. Images and labels are split over the mesh. What is
    dropped is a function of the seed, the step and the device.
    """

    def step(state, images, labels):
        images = normalize_images(images, preprocessing)
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        key = jax.random.fold_in(key, lax.axis_index(AXIS))
        return train_step(definition, optimizer, state, images, labels, key)

    sharded = jax.shard_map(step, mesh=mesh, in_specs=(P(), P(AXIS), P(AXIS)), out_specs=(P(), P()))
    return jax.jit(sharded, donate_argnums=0)
