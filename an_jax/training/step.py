"""The training step: a pure function of the state and a batch, the same for one device and many."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import PartitionSpec as P

from an_jax import functional
from an_jax.data.images.normalization import normalize_images
from an_jax.parallel import AXES, GROUP, MEMBER
from an_jax.training.targets import cross_entropy, mixup, smooth_targets
from an_jax.zoo import Preprocessing


class TrainState(NamedTuple):
    """All that a step changes; `step` counts the updates made (int32)."""

    step: jax.Array
    params: functional.Arrays
    batch_stats: functional.Arrays
    opt_state: optax.OptState


class Metrics(NamedTuple):
    """Of a step, before its update: mean loss, and share of images that hit their likeliest target.

    Both are scalars; top1 is in [0, 1].
    """

    loss: jax.Array
    top1: jax.Array


def init_state(split: functional.Split, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    step = jnp.zeros((), jnp.int32)
    return TrainState(step, split.params, split.batch_stats, optimizer.init(split.params))


def train_step(definition, optimizer, state: TrainState, images, targets, dropout_key):
    """One update on a device's share of the batch; called under `jax.shard_map`.

    Normalization statistics are those of the images of the device's group (see `parallel`): with
    groups of one its own, as in the published training. Gradients, running statistics and metrics
    are averaged over all devices.

    Args:
        definition, optimizer: static.
        state: the same on all devices.
        images: normalized [N, H, W, 3], this device's.
        targets: probabilities [N, C].
        dropout_key: this device's; with None nothing is dropped.

    Returns:
        The new state and the Metrics, whose loss is NaN also if the update is not finite.
    """

    def loss_fn(params):
        logits, batch_stats = functional.apply_train(
            definition, params, state.batch_stats, images, dropout_key, axis_name=MEMBER
        )
        is_correct = jnp.argmax(logits, axis=-1) == jnp.argmax(targets, axis=-1)
        loss = cross_entropy(logits, targets)
        return loss, (batch_stats, Metrics(loss, jnp.mean(is_correct, dtype=jnp.float32)))

    # Each device differentiates by parameters of its own, so that gradients are averaged here, in
    # float32; otherwise that would happen in the dtype of the computation.
    params = lax.pcast(state.params, AXES, to="varying")
    gradients, (batch_stats, metrics) = jax.grad(loss_fn, has_aux=True)(params)
    gradients, metrics = lax.pmean((gradients, metrics), AXES)
    batch_stats = lax.pmean(batch_stats, GROUP)  # the same within a group already
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    # A state that is no number shall show at once, before it is saved.
    is_finite = jnp.isfinite(optax.tree.norm(updates))
    metrics = metrics._replace(loss=jnp.where(is_finite, metrics.loss, jnp.nan))
    return TrainState(state.step + 1, params, batch_stats, opt_state), metrics


def make_train_step(
    definition,
    optimizer: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
    preprocessing: Preprocessing,
    num_classes: int,
    *,
    label_smoothing: float = 0.0,
    mixup_alpha: float = 0.0,
    seed: int = 0,
):
    """The compiled step: (state, uint8 images [N, H, W, 3], labels [N]) -> (state, Metrics).

    The state is donated: use the returned one. Images and labels are split over the mesh. What is
    dropped and how images are mixed is a function of the seed, the step and the device.

    Args:
        definition, optimizer: static.
        mesh: of `parallel.make_mesh`; its groups share normalization statistics.
        preprocessing: how images are normalized.
        num_classes: number of logits.
        label_smoothing: share of the target that is spread over all classes.
        mixup_alpha: one lam ~ Beta(alpha, alpha) is drawn for each device's batch; 0: no mixup.
        seed: of dropout and mixup.
    """

    def step(state, images, labels):
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        key = jax.random.fold_in(key, lax.axis_index(AXES))
        dropout_key, mixup_key = jax.random.split(key)
        targets = smooth_targets(labels, num_classes, label_smoothing)
        if mixup_alpha:
            lam = jax.random.beta(mixup_key, mixup_alpha, mixup_alpha)
            images, targets = mixup(images, targets, lam)
        images = normalize_images(images, preprocessing)
        return train_step(definition, optimizer, state, images, targets, dropout_key)

    sharded = jax.shard_map(step, mesh=mesh, in_specs=(P(), P(AXES), P(AXES)), out_specs=(P(), P()))
    return jax.jit(sharded, donate_argnums=0)
