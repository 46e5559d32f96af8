"""The functional core: a model as a static definition and two flat dictionaries of arrays.

Modules are split and merged only here. A dictionary maps dotted paths, such as
"layer1.0.conv1.kernel", to arrays. It is easy to jit, save, compare and select from by name.
"""

import hashlib
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util

from an_jax.nn.batch_norm import BatchNorm
from an_jax.nn.layers import Dropout

Arrays = dict[str, jax.Array]
NamedArrays = Mapping[str, jax.Array] | Mapping[str, np.ndarray]


class Split(NamedTuple):
    """A model split into its static and its numeric parts.

    Attributes:
        definition: the static part, hashable.
        params: the trained arrays.
        batch_stats: the running statistics.
    """

    definition: nnx.GraphDef
    params: Arrays
    batch_stats: Arrays


def split(model: nnx.Module) -> Split:
    """Splits a model, which may be abstract."""
    definition, *states = nnx.split(model, nnx.Param, nnx.BatchStat)
    params, batch_stats = map(_flatten, states)
    return Split(definition, params, batch_stats)


def merge(definition: nnx.GraphDef, params: Arrays, batch_stats: Arrays) -> nnx.Module:
    """Builds a new model from the parts. It shares no variable with any other model."""
    return nnx.merge(definition, _nest(params), _nest(batch_stats), copy=True)


def apply_eval(
    definition: nnx.GraphDef,
    params: Arrays,
    batch_stats: Arrays,
    images: jax.Array,
    *,
    method: str = "__call__",
) -> Any:
    """Runs the forward pass in eval mode.

    Args:
        definition, params, batch_stats: the model.
        images: normalized images [N, H, W, 3].
        method: of the model: "__call__", or "features" for the feature maps.

    Returns:
        What the method returns: the logits [N, num_classes], or the maps.
    """
    model = merge(definition, params, batch_stats)
    model.eval()
    return getattr(model, method)(images)


def apply_train(
    definition: nnx.GraphDef,
    params: Arrays,
    batch_stats: Arrays,
    images: jax.Array,
    dropout_keys: jax.Array | None,
    *,
    axis_name: str | None = None,
    frozen: Collection[str] = (),
    method: str = "__call__",
) -> tuple[Any, Arrays]:
    """Runs the forward pass in training mode.

    Args:
        definition, params, batch_stats: the model.
        images: normalized images [N, H, W, 3].
        dropout_keys: a random key for each image, [N]. None disables dropout.
        axis_name: the mesh axis, under `jax.shard_map`, whose devices share normalization
            statistics. None normalizes with this device's own batch.
        frozen: names of running statistics to normalize with, as in eval mode.
        method: as in `apply_eval`.

    Returns:
        What the method returns, and the updated running statistics.
    """
    model = merge(definition, params, batch_stats)
    model.train()
    modules = list(nnx.iter_modules(model))
    for i, dropout in enumerate(m for _, m in modules if isinstance(m, Dropout)):
        dropout.deterministic = dropout_keys is None
        if dropout_keys is not None:
            dropout.keys = jax.vmap(lambda key, i=i: jax.random.fold_in(key, i))(dropout_keys)
    for path, norm in modules:
        if isinstance(norm, BatchNorm):
            norm.axis_name = axis_name
            norm.use_running_average = ".".join(map(str, (*path, "mean"))) in frozen
    outputs = getattr(model, method)(images)
    return outputs, _flatten(nnx.state(model, nnx.BatchStat))


def count(arrays: NamedArrays) -> int:
    """Returns the total number of values in the arrays."""
    return sum(array.size for array in arrays.values())


def digest(arrays: NamedArrays) -> str:
    """Returns the SHA-256 digest of the arrays' names and values, in hexadecimal."""
    result = hashlib.sha256()
    for path in sorted(arrays):
        result.update(path.encode() + np.asarray(arrays[path]).tobytes())
    return result.hexdigest()


def _flatten(state: nnx.State) -> Arrays:
    return {".".join(map(str, path)): leaf.get_value() for path, leaf in nnx.to_flat_state(state)}


def _nest(arrays: Arrays) -> dict:
    # jnp.asarray, because the merged model would update NumPy arrays in place.
    return traverse_util.unflatten_dict(
        {_split_path(path): jnp.asarray(value) for path, value in arrays.items()}
    )


def _split_path(path: str) -> tuple[str | int, ...]:
    return tuple(int(part) if part.isdigit() else part for part in path.split("."))
