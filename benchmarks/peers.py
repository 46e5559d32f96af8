"""ResNet-50 of plain Flax layers, lowered for the TPU compiler like this package's models.

Built and trained like Flax's ImageNet example: bfloat16 images, weight decay in the loss, SGD with
Nesterov's momentum, and statistics of each chip. The models are written here, because the examples
of Flax are not on PyPI.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax
from flax import linen, nnx
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from an_jax.training.config import eval_batch_size

STAGES = ((3, 64), (4, 128), (6, 256), (3, 512))  # blocks, channels inside a block
# (params, statistics, images, is_training) -> logits, new statistics
Apply = Callable[[Any, Any, jax.Array, bool], tuple[jax.Array, Any]]


class LinenBlock(linen.Module):
    """Bottleneck block."""

    width: int
    stride: int

    @linen.compact
    def __call__(self, x: jax.Array, is_training: bool) -> jax.Array:
        """Returns [N, H', W', 4 * width] for [N, H, W, C]."""
        conv = functools.partial(linen.Conv, use_bias=False, dtype=jnp.bfloat16)
        norm = functools.partial(linen.BatchNorm, not is_training, momentum=0.9, dtype=jnp.bfloat16)
        y = linen.relu(norm()(conv(self.width, (1, 1))(x)))
        y = linen.relu(norm()(conv(self.width, (3, 3), self.stride)(y)))
        y = norm(scale_init=linen.initializers.zeros)(conv(4 * self.width, (1, 1))(y))
        if x.shape != y.shape:
            x = norm()(conv(4 * self.width, (1, 1), self.stride)(x))
        return linen.relu(x + y)


class LinenResNet(linen.Module):
    """ResNet-50."""

    @linen.compact
    def __call__(self, x: jax.Array, is_training: bool) -> jax.Array:
        """Returns float32 logits [N, 1000] for images [N, H, W, 3]."""
        x = linen.Conv(64, (7, 7), 2, use_bias=False, dtype=jnp.bfloat16)(x)
        x = linen.relu(linen.BatchNorm(not is_training, momentum=0.9, dtype=jnp.bfloat16)(x))
        x = linen.max_pool(x, (3, 3), (2, 2), padding="SAME")
        for stage, (num_blocks, width) in enumerate(STAGES):
            for i in range(num_blocks):
                x = LinenBlock(width, 2 if stage and not i else 1)(x, is_training)
        x = linen.Dense(1000, dtype=jnp.bfloat16)(jnp.mean(x, (1, 2)))
        return x.astype(jnp.float32)


class NnxConvNorm(nnx.Module):
    """Convolution and batch normalization."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int, rngs: nnx.Rngs):
        self.conv = nnx.Conv(
            inputs, outputs, (size, size), stride, use_bias=False, dtype=jnp.bfloat16, rngs=rngs
        )
        self.norm = nnx.BatchNorm(outputs, momentum=0.9, dtype=jnp.bfloat16, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns [N, H', W', outputs] for [N, H, W, inputs]."""
        return self.norm(self.conv(x))


class NnxBlock(nnx.Module):
    """Bottleneck block."""

    def __init__(self, inputs: int, width: int, stride: int, rngs: nnx.Rngs):
        self.layers = nnx.List(
            [
                NnxConvNorm(inputs, width, 1, 1, rngs),
                NnxConvNorm(width, width, 3, stride, rngs),
                NnxConvNorm(width, 4 * width, 1, 1, rngs),
            ]
        )
        has_shortcut = inputs != 4 * width
        self.shortcut = NnxConvNorm(inputs, 4 * width, 1, stride, rngs) if has_shortcut else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns [N, H', W', 4 * width] for [N, H, W, inputs]."""
        y = x
        for layer in self.layers[:-1]:
            y = nnx.relu(layer(y))
        y = self.layers[-1](y)
        return nnx.relu(y + (self.shortcut(x) if self.shortcut else x))


class NnxResNet(nnx.Module):
    """ResNet-50."""

    def __init__(self, rngs: nnx.Rngs):
        self.stem = NnxConvNorm(3, 64, 7, 2, rngs)
        blocks, inputs = [], 64
        for stage, (num_blocks, width) in enumerate(STAGES):
            for i in range(num_blocks):
                blocks.append(NnxBlock(inputs, width, 2 if stage and not i else 1, rngs))
                inputs = 4 * width
        self.blocks = nnx.List(blocks)
        self.classifier = nnx.Linear(inputs, 1000, dtype=jnp.bfloat16, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns float32 logits [N, 1000] for images [N, H, W, 3]."""
        x = nnx.max_pool(nnx.relu(self.stem(x)), (3, 3), (2, 2), padding="SAME")
        for block in self.blocks:
            x = block(x)
        return self.classifier(jnp.mean(x, (1, 2))).astype(jnp.float32)


def make_linen(images: jax.ShapeDtypeStruct) -> tuple[Any, Any, Apply]:
    """Returns abstract parameters and statistics, and the model as a function."""
    variables = jax.eval_shape(
        functools.partial(LinenResNet().init, is_training=False), jax.random.key(0), images
    )

    def apply(params: Any, stats: Any, images: jax.Array, is_training: bool) -> Any:
        variables = {"params": params, "batch_stats": stats}
        logits, new = LinenResNet().apply(variables, images, is_training, mutable=["batch_stats"])
        return logits, new["batch_stats"]

    return variables["params"], variables["batch_stats"], apply


def make_nnx(images: jax.ShapeDtypeStruct) -> tuple[Any, Any, Apply]:
    """Returns abstract parameters and statistics, and the model as a function."""
    del images
    model = nnx.eval_shape(lambda: NnxResNet(nnx.Rngs(0)))
    definition = nnx.graphdef(model)
    params, stats = nnx.state(model, nnx.Param), nnx.state(model, nnx.BatchStat)

    def apply(params: Any, stats: Any, images: jax.Array, is_training: bool) -> Any:
        model = nnx.merge(definition, params, stats, copy=True)  # statistics change in place
        if is_training:
            model.train()
        else:
            model.eval()
        logits = model(images)
        return logits, nnx.state(model, nnx.BatchStat)

    return params, stats, apply


PEERS = {"linen_resnet_50": make_linen, "nnx_resnet_50": make_nnx}


def lower_step(
    config: ml_collections.ConfigDict, devices: Sequence[jax.Device]
) -> jax.stages.Lowered:
    """Lowers the training step of a peer, `config.model`, for `config.batch_size` images."""
    mesh = Mesh(devices, "data")
    images = _images(config.batch_size)
    params, stats, apply = PEERS[config.model](images)
    optimizer = optax.sgd(0.1, momentum=0.9, nesterov=True)

    def step(params: Any, stats: Any, opt_state: Any, images: jax.Array, labels: jax.Array) -> Any:
        def loss_fn(params: Any) -> tuple[jax.Array, Any]:
            logits, new_stats = apply(params, stats, images, True)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            decayed = [jnp.sum(p**2) for p in jax.tree.leaves(params) if p.ndim > 1]
            return jnp.mean(losses) + 5e-5 * sum(decayed), new_stats

        (loss, new_stats), gradients = jax.value_and_grad(loss_fn, has_aux=True)(params)
        loss, new_stats, gradients = lax.pmean((loss, new_stats, gradients), "data")
        updates, opt_state = optimizer.update(gradients, opt_state)
        return optax.apply_updates(params, updates), new_stats, opt_state, loss

    state = (params, stats, jax.eval_shape(optimizer.init, params))
    specs = (P(), P(), P(), P("data"), P("data"))
    sharded = jax.shard_map(step, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=False)
    labels = jax.ShapeDtypeStruct(images.shape[:1], jnp.int32)
    return jax.jit(sharded, donate_argnums=(0, 1, 2)).lower(
        *_place(state, mesh, P()), *_place((images, labels), mesh, P("data"))
    )


def lower_evaluation(
    config: ml_collections.ConfigDict, devices: Sequence[jax.Device]
) -> jax.stages.Lowered:
    """Lowers evaluation of a peer: logits of `eval_batch_size` images."""
    mesh = Mesh(devices, "data")
    images = _images(eval_batch_size(config))
    *state, apply = PEERS[config.model](images)
    logits = jax.jit(lambda params, stats, images: apply(params, stats, images, False)[0])
    return logits.lower(*_place(state, mesh, P()), _place(images, mesh, P("data")))


def _images(batch_size: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((batch_size, 224, 224, 3), jnp.bfloat16)


def _place(arrays: Any, mesh: Mesh, spec: P) -> Any:
    sharding = NamedSharding(mesh, spec)
    return jax.tree.map(lambda a: a.update(sharding=sharding), arrays)
