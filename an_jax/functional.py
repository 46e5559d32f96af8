"""The functional core: a model as a static definition and two flat dictionaries of arrays.

Only here are modules split and merged. A dictionary maps dotted paths, such as
"layer1.0.conv1.kernel", to arrays: easy to jit, to save, to compare and to select from by name.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from an_jax.nn.batch_norm import BatchNorm

Arrays = dict[str, jax.Array]


class Split(NamedTuple):
    """A model taken apart.

    Attributes:
        definition: everything static, hashable.
        params: what is trained.
        batch_stats: the running statistics.
    """

    definition: nnx.GraphDef
    params: Arrays
    batch_stats: Arrays


def split(model: nnx.Module) -> Split:
    """Takes a model (or an abstract one) apart."""
    definition, params, batch_stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    return Split(definition, _flatten(params), _flatten(batch_stats))


def merge(definition: nnx.GraphDef, params: Arrays, batch_stats: Arrays) -> nnx.Module:
    """Puts a model together again; it shares no variable with another."""
    return nnx.merge(definition, _nest(params), _nest(batch_stats), copy=True)


def apply_eval(definition, params: Arrays, batch_stats: Arrays, images: jax.Array) -> jax.Array:
    """Logits [N, num_classes] of normalized images [N, H, W, 3], with running statistics."""
    model = merge(definition, params, batch_stats)
    model.eval()
    return model(images)


def apply_train(
    definition,
    params: Arrays,
    batch_stats: Arrays,
    images: jax.Array,
    dropout_key: jax.Array | None,
    *,
    axis_name: str | None = None,
) -> tuple[jax.Array, Arrays]:
    """Logits with the statistics of the batch, and the running statistics after it.

    The `dropout_key` decides what is dropped; with None nothing is. The batch is this device's
    own, or under `jax.shard_map` that of all devices along the mesh axis `axis_name`.
    """
    model = merge(definition, params, batch_stats)
    model.train()
    modules = [module for _, module in nnx.iter_modules(model)]
    for i, layer in enumerate(m for m in modules if isinstance(m, nnx.Dropout)):
        layer.deterministic = dropout_key is None
        layer.rngs = None if dropout_key is None else jax.random.fold_in(dropout_key, i)
    for layer in (m for m in modules if isinstance(m, BatchNorm)):
        layer.axis_name = axis_name
    logits = model(images)
    return logits, _flatten(nnx.state(model, nnx.BatchStat))


def count(arrays: Arrays) -> int:
    """Number of values in all arrays together."""
    return sum(array.size for array in arrays.values())


def _flatten(state: nnx.State) -> Arrays:
    return {".".join(map(str, path)): leaf.get_value() for path, leaf in nnx.to_flat_state(state)}


def _nest(arrays: Mapping) -> dict:
    tree = {}
    for path, value in arrays.items():
        *parents, name = (int(p) if p.isdigit() else p for p in path.split("."))
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = jnp.asarray(value)  # NumPy arrays would be changed in place
    return tree
