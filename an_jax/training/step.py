"""The training step: one update on a batch, a function of the batch and not of the devices.

Each device, on its share of the batch, one micro-batch after the other:
1. smooths the labels, mixes the images up, normalizes them;
2. computes logits, cross entropy and gradients.

Then all devices average gradients, running statistics and metrics, and update parameters and
optimizer state.
"""

import functools
from collections.abc import Collection
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import lax
from jax.sharding import PartitionSpec as P

from an_jax import functional, parallel
from an_jax.data.images.normalization import normalize_images
from an_jax.parallel import AXES, GROUP, MEMBER
from an_jax.training.targets import mixup, smooth_targets
from an_jax.zoo import Preprocessing


class TrainState(NamedTuple):
    """Everything that a step changes.

    Attributes:
        step: number of updates made, int32.
        params: the parameters.
        batch_stats: the running statistics.
        opt_state: the optimizer's state.
        ema: moving averages, {"params", "batch_stats"}; None without averaging.
    """

    step: jax.Array
    params: functional.Arrays
    batch_stats: functional.Arrays
    opt_state: optax.OptState
    ema: dict[str, functional.Arrays] | None = None


class BatchMetrics(NamedTuple):
    """Metrics of one micro-batch on one device before the update, float32 scalars.

    Attributes:
        loss: mean cross entropy.
        top1: top-1 accuracy against the most probable target, in [0, 1].
    """

    loss: jax.Array
    top1: jax.Array


class Metrics(NamedTuple):
    """Metrics of a step, float32 scalars.

    Attributes:
        loss, top1: those of its global batch; see `BatchMetrics`.
        gradient_norm: L2 norm of the global batch's gradients of all trained parameters together,
            before clipping.
        update_norm: L2 norm of what the step adds to the parameters.
    """

    loss: jax.Array
    top1: jax.Array
    gradient_norm: jax.Array
    update_norm: jax.Array


def init_state(
    split: functional.Split, optimizer: optax.GradientTransformation, *, has_ema: bool = False
) -> TrainState:
    """Returns the state before the first step; moving averages begin with the initial weights."""
    weights = {"params": split.params, "batch_stats": split.batch_stats}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        **weights,
        opt_state=optimizer.init(split.params),
        ema=weights if has_ema else None,
    )


def abstract_state(
    split: functional.Split,
    optimizer: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
    *,
    has_ema: bool = False,
) -> TrainState:
    """Returns the shapes, dtypes and shardings of the state, for a model that may be abstract."""

    def make(params: functional.Arrays, batch_stats: functional.Arrays) -> TrainState:
        weights = functional.Split(split.definition, params, batch_stats)
        return init_state(weights, optimizer, has_ema=has_ema)

    state = jax.eval_shape(make, split.params, split.batch_stats)
    return parallel.abstract(state, parallel.replicated(mesh))


def differentiate(
    definition: nnx.GraphDef,
    state: TrainState,
    images: jax.Array,
    targets: jax.Array,
    dropout_keys: jax.Array | None,
    frozen: Collection[str] = (),
) -> tuple[functional.Arrays, functional.Arrays, BatchMetrics]:
    """Returns gradients, running statistics and metrics of a device's images.

    Called under `jax.shard_map`; the devices of a group share normalization statistics.

    Args:
        definition: the model's static part.
        state: the same on all devices.
        images: normalized [n, H, W, 3].
        targets: probabilities [n, C].
        dropout_keys: [n]; None disables dropout.
        frozen: names of arrays that do not change.
    """

    def loss_fn(
        params: functional.Arrays,
    ) -> tuple[jax.Array, tuple[functional.Arrays, BatchMetrics]]:
        logits, batch_stats = functional.apply_train(
            definition,
            params,
            state.batch_stats,
            images,
            dropout_keys,
            axis_name=MEMBER,
            frozen=frozen,
        )
        loss = jnp.mean(optax.softmax_cross_entropy(logits, targets))
        is_correct = jnp.argmax(logits, axis=-1) == jnp.argmax(targets, axis=-1)
        return loss, (batch_stats, BatchMetrics(loss, jnp.mean(is_correct, dtype=jnp.float32)))

    # Without this cast, differentiation would sum the gradients of all devices itself, in the
    # compute dtype. `update` averages them in float32.
    params = lax.pcast(state.params, AXES, to="varying")
    gradients, (batch_stats, metrics) = jax.grad(loss_fn, has_aux=True)(params)
    return gradients, batch_stats, metrics


def update(
    optimizer: optax.GradientTransformation,
    state: TrainState,
    gradients: functional.Arrays,
    batch_stats: functional.Arrays,
    batch_metrics: BatchMetrics,
    frozen: Collection[str] = (),
    ema_decay: float = 0.0,
) -> tuple[TrainState, Metrics]:
    """Averages what `differentiate` returns over all devices; returns the new state and metrics.

    The loss is NaN if the update is not finite.
    """
    gradients, (loss, top1) = lax.pmean((gradients, batch_metrics), AXES)
    batch_stats = lax.pmean(batch_stats, GROUP)  # the devices of a group have the same already
    # An average of equal numbers may be rounded.
    batch_stats |= {name: state.batch_stats[name] for name in frozen if name in batch_stats}
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    # Detect a non-finite update before it is checkpointed.
    update_norm = optax.tree.norm(updates)
    loss = jnp.where(jnp.isfinite(update_norm), loss, jnp.nan)
    # Including frozen parameters would force XLA to compute their gradients.
    trained = {name: array for name, array in gradients.items() if name not in frozen}
    metrics = Metrics(loss, top1, optax.tree.norm(trained), update_norm)
    ema = state.ema and jax.tree.map(
        # Unlike decay * old + (1 - decay) * new, this keeps values that do not change.
        lambda old, new: old + (1 - ema_decay) * (new - old),
        state.ema,
        {"params": params, "batch_stats": batch_stats},
    )
    return TrainState(state.step + 1, params, batch_stats, opt_state, ema), metrics


def make_train_step(
    definition: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
    preprocessing: Preprocessing,
    num_classes: int,
    *,
    num_micro_batches: int = 1,
    label_smoothing: float = 0.0,
    mixup_alpha: float = 0.0,
    seed: int = 0,
    frozen: Collection[str] = (),
    ema_decay: float = 0.0,
) -> jax.stages.Wrapped:
    """Returns the jitted step: (state, uint8 images [N, H, W, 3], labels [N]) -> (state, metrics).

    The step donates the state: use the returned one. Images and labels are split over the mesh, in
    the order of `NormGroups.rows`. The micro-batches that the devices of one group compute at the
    same time share normalization statistics and mixup. Dropout and mixup are functions of the seed,
    the step and the row of the batch. The loss is NaN if the update is not finite.

    Args:
        definition: the model's static part.
        optimizer: static.
        mesh: from `parallel.make_mesh`.
        preprocessing: says how to normalize images.
        num_classes: number of logits.
        num_micro_batches: parts of a device's share; it computes one after the other, which takes
            the memory of one.
        label_smoothing: share of the target that is spread over all classes.
        mixup_alpha: each group draws one lam ~ Beta(alpha, alpha) for its images; 0: no mixup.
        seed: seed of dropout and mixup.
        frozen: names of parameters and running statistics that do not change; the optimizer must
            not update these parameters.
        ema_decay: share of the old values in an update of the moving averages.
    """

    def compute(
        state: TrainState, images: jax.Array, labels: jax.Array, micro_batch: jax.Array | int
    ) -> tuple[functional.Arrays, functional.Arrays, BatchMetrics]:
        """Returns what `differentiate` does for one of this device's micro-batches."""
        n = len(images)
        group = lax.axis_index(GROUP) * num_micro_batches + micro_batch
        rows = n * (group * lax.axis_size(MEMBER) + lax.axis_index(MEMBER)) + jnp.arange(n)
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        dropout_key, mixup_key = jax.random.split(key)
        dropout_keys = jax.vmap(functools.partial(jax.random.fold_in, dropout_key))(rows)
        targets = smooth_targets(labels, num_classes, label_smoothing)
        if mixup_alpha:
            lam = jax.random.beta(jax.random.fold_in(mixup_key, group), mixup_alpha, mixup_alpha)
            images, targets = mixup(images, targets, lam, axis_name=MEMBER)
        images = normalize_images(images, preprocessing)
        return differentiate(definition, state, images, targets, dropout_keys, frozen)

    def compute_all(
        state: TrainState, images: jax.Array, labels: jax.Array
    ) -> tuple[functional.Arrays, functional.Arrays, BatchMetrics]:
        """Returns the average over this device's micro-batches."""
        if num_micro_batches == 1:
            return compute(state, images, labels, 0)

        def add(sums: tuple, micro_batch: tuple) -> tuple[tuple, BatchMetrics]:
            *arrays, metrics = compute(state, *micro_batch)
            return jax.tree.map(jnp.add, sums, tuple(arrays)), metrics

        zeros = jax.tree.map(jnp.zeros_like, (state.params, state.batch_stats))
        zeros = tuple(map(functools.partial(lax.pcast, to="varying"), zeros, (AXES, GROUP)))
        parts = [a.reshape(num_micro_batches, -1, *a.shape[1:]) for a in (images, labels)]
        sums, metrics = lax.scan(add, zeros, (*parts, jnp.arange(num_micro_batches)))
        gradients, batch_stats = jax.tree.map(lambda total: total / num_micro_batches, sums)
        return gradients, batch_stats, jax.tree.map(jnp.mean, metrics)

    def step(state: TrainState, images: jax.Array, labels: jax.Array) -> tuple[TrainState, Metrics]:
        return update(optimizer, state, *compute_all(state, images, labels), frozen, ema_decay)

    sharded = jax.shard_map(step, mesh=mesh, in_specs=(P(), P(AXES), P(AXES)), out_specs=(P(), P()))
    return jax.jit(sharded, donate_argnums=0)
