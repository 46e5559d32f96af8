"""Devices: one mesh axis, `data`, over which batches are split."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXIS = "data"


def make_mesh() -> Mesh:
    """All devices in a row."""
    return jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device holds whole: parameters, statistics, metrics."""
    return NamedSharding(mesh, P())


def batched(mesh: Mesh) -> NamedSharding:
    """The sharding of what is split along its first axis: images and labels."""
    return NamedSharding(mesh, P(AXIS))


def replicate(tree, mesh: Mesh):
    """Copies a tree of host arrays to every device."""
    return jax.device_put(tree, replicated(mesh))


def shard_batch(batch, mesh: Mesh):
    """A tree of this process's NumPy rows -> global arrays split over the mesh."""
    sharding = batched(mesh)
    return jax.tree.map(
        lambda rows: jax.make_array_from_process_local_data(sharding, np.asarray(rows)), batch
    )
