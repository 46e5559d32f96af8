"""Devices and processes: batches are split over all devices, which form groups.

The devices of a group share normalization statistics in training. The axis of the data is two in
the mesh, (group, member), because `jax.shard_map` knows no collectives over parts of an axis.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from an_jax.errors import InputError

GROUP, MEMBER = "group", "member"
AXES = (GROUP, MEMBER)  # all devices
T = TypeVar("T")


def initialize() -> None:
    """Joins the other processes of a TPU pod, a SLURM or an MPI job, if there are any.

    Elsewhere JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID say who they are. To be
    called before anything else of jax.

    Raises:
        InputError: only some of that is said.
    """
    given = {
        argument: int(os.environ[variable])
        for argument, variable in (
            ("num_processes", "JAX_NUM_PROCESSES"),
            ("process_id", "JAX_PROCESS_ID"),
        )
        if variable in os.environ
    }
    try:
        # After an error on one process alone, the others are not to wait for it for long.
        jax.distributed.initialize(**given, shutdown_timeout_seconds=60)
    except ValueError as error:
        if given or "coordinator_address" not in str(error):
            raise InputError(f"the processes cannot find each other: {error}") from error
        # Nothing says that there are several: this is the only process.


def is_main_process() -> bool:
    """Whether this process prints and writes."""
    return jax.process_index() == 0


def on_main_process(function: Callable[[], T]) -> T | None:
    """What a function returns that the main process alone calls; None on the others.

    Raises:
        InputError: on every process, if the function raises it or OSError.
    """
    result, error = None, None
    if is_main_process():
        try:
            result = function()
        except (InputError, OSError) as found:
            error = found
    check_agreement("", error)
    return result


def check_agreement(seen: str, error: Exception | None) -> None:
    """Lets every process go on only if all can, and if all see the same.

    Args:
        seen: what must be the same on every process.
        error: why this process cannot go on.

    Raises:
        InputError: this process's own error, or that another one has failed or sees otherwise.
    """
    if error is not None and jax.process_count() == 1:
        raise error
    digest = np.frombuffer(hashlib.sha256(seen.encode()).digest(), np.uint8)
    everyones = _gather_equal(np.append(digest, np.uint8(error is not None)))
    if error is not None:
        raise error
    if everyones[:, -1].any():
        raise InputError(f"stopped: process {everyones[:, -1].argmax()} has failed")
    other = (everyones != everyones[0]).any(axis=1)
    if other.any():
        raise InputError(f"process {other.argmax()} does not see the same data as process 0")


def agree(flag: bool) -> bool:
    """The main process's flag, on every process."""
    return bool(_gather_equal(np.array([flag], np.uint8))[0, 0])


def make_mesh(group_size: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of all devices, or of those given, in groups of `group_size`, which divides them."""
    devices = jax.devices() if devices is None else devices
    shape = (len(devices) // group_size, group_size)
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device holds whole: parameters, statistics, metrics."""
    return NamedSharding(mesh, P())


def batched(mesh: Mesh) -> NamedSharding:
    """The sharding of what is split along its first axis: images and labels."""
    return NamedSharding(mesh, P(AXES))


def replicate(tree, mesh: Mesh):
    """Copies a tree of arrays, the same on every process, to every device."""
    return _distribute(tree, replicated(mesh))


def shard_batch(batch, mesh: Mesh):
    """A tree of this process's NumPy rows -> global arrays split over the mesh."""
    return _distribute(batch, batched(mesh))


def _distribute(tree, sharding):
    return jax.tree.map(
        lambda local: jax.make_array_from_process_local_data(sharding, np.asarray(local)), tree
    )


def local_rows(array: jax.Array) -> np.ndarray:
    """This process's rows of a global array that is split over the mesh, in their order."""
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards])


def share_of_process(n: int) -> range:
    """The part of n rows that is this process's."""
    return shares(n)[jax.process_index()]


def shares(n: int) -> list[range]:
    """Each process's part of n rows: contiguous, sizes differ by at most one."""
    count = jax.process_count()
    return [range(n * i // count, n * (i + 1) // count) for i in range(count)]


def gather(rows: np.ndarray, n: int) -> np.ndarray:
    """Each process's rows, those of `share_of_process(n)`, -> all n rows on every process."""
    sizes = [len(share) for share in shares(n)]
    filling = np.zeros((max(sizes) - len(rows), *rows.shape[1:]), rows.dtype)
    everyones = _gather_equal(np.concatenate([rows, filling]))
    return np.concatenate([part[:size] for part, size in zip(everyones, sizes, strict=True)])


def total(number: int) -> int:
    """The sum of the numbers that the processes have."""
    return int(_gather_equal(np.array([number])).sum())


def largest(number: int) -> int:
    """The largest of the numbers that the processes have."""
    return int(_gather_equal(np.array([number])).max())


def _gather_equal(rows: np.ndarray) -> np.ndarray:
    """Arrays of the same shape on every process, stacked."""
    if jax.process_count() == 1:
        return rows[None]
    return np.asarray(multihost_utils.process_allgather(rows))
