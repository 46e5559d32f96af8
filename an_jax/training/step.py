"""The training step: one SGD update on a batch, the same for one device and many.

Each device, on its share of the batch:
1. smooths the labels, mixes the images up, normalizes them (`make_train_step`);
2. computes logits, cross entropy and gradients (`train_step`, as all that follows);
3. averages gradients, running statistics and metrics over all devices;
4. updates parameters and optimizer state.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import lax
from jax.sharding import PartitionSpec as P

from an_jax import functional
from an_jax.data.images.normalization import normalize_images
from an_jax.parallel import AXES, GROUP, MEMBER
from an_jax.training.targets import mixup, smooth_targets
from an_jax.zoo import Preprocessing


class TrainState(NamedTuple):
    """Everything that a step changes; `step` counts the updates made (int32)."""

    step: jax.Array
    params: functional.Arrays
    batch_stats: functional.Arrays
    opt_state: optax.OptState


class Metrics(NamedTuple):
    """Metrics of a step's batch before the update, float32 scalars.

    Attributes:
        loss: mean cross entropy.
        top1: top-1 accuracy against the most probable target, in [0, 1].
    """

    loss: jax.Array
    top1: jax.Array


def init_state(split: functional.Split, optimizer: optax.GradientTransformation) -> TrainState:
    """Returns the state before the first step."""
    step = jnp.zeros((), jnp.int32)
    return TrainState(step, split.params, split.batch_stats, optimizer.init(split.params))


def train_step(
    definition: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    images: jax.Array,
    targets: jax.Array,
    dropout_key: jax.Array | None,
) -> tuple[TrainState, Metrics]:
    """Updates the state with a device's share of the batch; called under `jax.shard_map`.

    The devices of a group share normalization statistics (see `parallel`). With groups of one,
    each device uses the statistics of its own images, as in the published training.

    Args:
        definition: the model's static part.
        optimizer: static.
        state: the same on all devices.
        images: normalized, this device's [N, H, W, 3].
        targets: probabilities [N, C].
        dropout_key: this device's; None disables dropout.

    Returns:
        The new state and the metrics; the loss is NaN if the update is not finite.
    """

    def loss_fn(params: functional.Arrays) -> tuple[jax.Array, tuple[functional.Arrays, Metrics]]:
        logits, batch_stats = functional.apply_train(
            definition, params, state.batch_stats, images, dropout_key, axis_name=MEMBER
        )
        loss = jnp.mean(optax.softmax_cross_entropy(logits, targets))
        is_correct = jnp.argmax(logits, axis=-1) == jnp.argmax(targets, axis=-1)
        return loss, (batch_stats, Metrics(loss, jnp.mean(is_correct, dtype=jnp.float32)))

    # Without this cast, differentiation would sum the gradients of all devices itself, in the
    # compute dtype. They are averaged below, in float32.
    params = lax.pcast(state.params, AXES, to="varying")
    gradients, (batch_stats, metrics) = jax.grad(loss_fn, has_aux=True)(params)

    gradients, metrics = lax.pmean((gradients, metrics), AXES)
    batch_stats = lax.pmean(batch_stats, GROUP)  # members of a group have the same already

    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    # Detect a non-finite update before it is checkpointed.
    is_finite = jnp.isfinite(optax.tree.norm(updates))
    metrics = metrics._replace(loss=jnp.where(is_finite, metrics.loss, jnp.nan))
    return TrainState(state.step + 1, params, batch_stats, opt_state), metrics


def make_train_step(
    definition: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
    preprocessing: Preprocessing,
    num_classes: int,
    *,
    label_smoothing: float = 0.0,
    mixup_alpha: float = 0.0,
    seed: int = 0,
) -> jax.stages.Wrapped:
    """Returns the jitted step: (state, uint8 images [N, H, W, 3], labels [N]) -> (state, metrics).

    The step donates the state: use the returned one. Images and labels are split over the mesh.
    Dropout and mixup are functions of the seed, the step and the device.

    Args:
        definition: the model's static part.
        optimizer: static.
        mesh: from `parallel.make_mesh`; its groups share normalization statistics.
        preprocessing: says how to normalize images.
        num_classes: number of logits.
        label_smoothing: share of the target that is spread over all classes.
        mixup_alpha: each device draws one lam ~ Beta(alpha, alpha) for its images; 0: no mixup.
        seed: seed of dropout and mixup.
    """

    def step(state: TrainState, images: jax.Array, labels: jax.Array) -> tuple[TrainState, Metrics]:
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
