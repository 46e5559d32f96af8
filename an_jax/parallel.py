"""Data parallelism over the devices of all processes.

The mesh has two axes, (group, member), and batches are sharded over both. The devices of a group
share normalization statistics in training. Two axes are needed because `jax.shard_map` has no
collectives over part of an axis.
"""

import contextlib
import json
import pickle
import platform
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import Mesh, NamedSharding, Sharding
from jax.sharding import PartitionSpec as P

from an_jax.cluster import distributed_arguments, limiting_start
from an_jax.errors import InputError, one_line

GROUP, MEMBER = "group", "member"
AXES = (GROUP, MEMBER)  # all devices
T = TypeVar("T")


def initialize(
    *,
    handles_sigterm: bool = False,
    initialization_timeout: int = 300,
    heartbeat_timeout: int = 100,
) -> None:
    """Joins the other processes of the job, if there are any; comes before anything else of JAX.

    Finds those of a TPU pod and of a job of SLURM, Open MPI or Kubernetes. On other clusters the
    environment variables JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID describe the
    job. With JAX_NUM_PROCESSES=1 this process stays alone.

    Args:
        handles_sigterm: whether the processes agree on a step to stop at after SIGTERM; see
            `training.preemption`. Otherwise SIGTERM ends a process.
        initialization_timeout: seconds to wait for the other processes; then this one ends.
        heartbeat_timeout: seconds without a sign of life after which a process counts as dead,
            which ends the others.

    Raises:
        InputError: the environment does not say where the other processes are.
    """
    arguments: dict | None = None
    # In a job, jax would ignore SIGTERM otherwise.
    jax.config.update("jax_enable_preemption_service", handles_sigterm)
    try:
        arguments = distributed_arguments()
        if arguments is not None:
            with limiting_start(initialization_timeout):
                jax.distributed.initialize(
                    **arguments,
                    initialization_timeout=initialization_timeout + 60,  # later than ours
                    heartbeat_timeout_seconds=heartbeat_timeout,
                    # Limits how long the others wait at the end for a process that has failed.
                    shutdown_timeout_seconds=60,
                )
    except Exception as error:  # each kind of cluster has its own
        if arguments == {} and "coordinator_address" in str(error):
            return  # no cluster was detected: this is the only process
        raise InputError(
            f"the processes cannot find each other: {one_line(error).rstrip('.')}. Set "
            "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID, or JAX_NUM_PROCESSES=1 "
            "to run this process alone"
        ) from error


def connect() -> None:
    """Connects the processes to each other. Call this once JAX is configured.

    On CPUs, JAX connects processes at their first collective operation, and fails if one of them
    is 30 seconds late. Opening a data set can take longer on one machine than on another.

    Raises:
        InputError: the processes have different versions of Python or jax.
    """
    check_agreement(
        {"version of Python": platform.python_version(), "version of jax": jax.__version__}
    )


def is_main_process() -> bool:
    """Returns whether this is process 0, which prints and writes files."""
    return jax.process_index() == 0


def on_main_process(function: Callable[[], T]) -> T | None:
    """Calls a function on process 0 alone; returns its result there, and None elsewhere.

    Raises:
        Exception: on process 0 the function's own error; on the others an InputError.
    """
    result = None
    with failing_together():
        result = function() if is_main_process() else None
    return result


def from_main_process(function: Callable[[], T]) -> T:
    """Calls a function on process 0 alone; returns its result there, and copies of it elsewhere.

    Args:
        function: returns what pickle can copy.

    Raises:
        Exception: as `on_main_process` does; or a process cannot make its copy.
    """
    if jax.process_count() == 1:
        return function()

    def call() -> tuple[T, bytes]:
        result = function()
        return result, zlib.compress(pickle.dumps(result), level=1)

    result, content = on_main_process(call) or (None, b"")
    size = max_over_processes(len(content))
    sent = np.frombuffer(content or bytes(size), np.uint8)
    received = multihost_utils.broadcast_one_to_all(sent)
    with failing_together():
        copied = pickle.loads(zlib.decompress(received.tobytes())) if result is None else result
    return copied


@contextlib.contextmanager
def failing_together() -> Iterator[None]:
    """Stops all processes if the body, which every process runs on its own, fails on one of them.

    Otherwise the others would wait for it, and be aborted after minutes. The body must not wait
    for other processes.

    Raises:
        Exception: the body's own error on a process that has failed.
        InputError: another process has failed.
    """
    error: Exception | None = None
    try:
        yield
    except Exception as caught:
        error = caught
    check_agreement({}, error)


def check_agreement(fingerprints: Mapping[str, str], error: Exception | None = None) -> None:
    """Stops all processes if one has failed or if their fingerprints differ.

    Args:
        fingerprints: name -> text that must be the same on every process.
        error: the error of this process, if it has failed.

    Raises:
        Exception: `error` itself on a process that has failed.
        InputError: another process has failed or has a different fingerprint.
    """
    if error is not None and jax.process_count() == 1:
        raise error
    report = {"error": error and str(error), "fingerprints": dict(fingerprints)}
    reports = [json.loads(text) for text in _gather_texts(json.dumps(report))]
    if error is not None:
        raise error
    for process, other in enumerate(reports):
        if other["error"] is not None:
            raise InputError(f"stopped: process {process} has failed: {other['error']}")
    expected = reports[0]["fingerprints"]
    for process, other in enumerate(reports):
        found = other["fingerprints"]
        for name in expected | found:
            if expected.get(name) != found.get(name):
                raise InputError(
                    f"process {process} does not have the same {name} as process 0; give all "
                    "processes the same command and files"
                )


def broadcast_flag(flag: bool) -> bool:
    """Returns process 0's flag on every process."""
    return bool(_gather_equal(np.array([flag], np.uint8))[0, 0])


def make_mesh(group_size: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns a mesh of all devices, or of the given ones.

    On TPUs the devices of a group are neighbors: the mesh has an order of its own.

    Args:
        group_size: devices that share normalization statistics; divides the number of devices.
        devices: all devices of all processes by default.

    Raises:
        InputError: a group would span several TPU slices, which have no fast links to each other.
    """
    slices: dict[int, list[jax.Device]] = {}
    for device in jax.devices() if devices is None else devices:
        # Groups of GPUs may span slices. Devices of the TPU compiler have no slice.
        index = getattr(device, "slice_index", 0) if device.platform == "tpu" else 0
        slices.setdefault(index, []).append(device)
    for members in slices.values():
        if len(members) % group_size:
            raise InputError(
                f"groups of {group_size} devices cannot share normalization statistics, since a "
                f"TPU slice has {len(members)} devices: choose another norm_batch_size"
            )
    parts = [
        mesh_utils.create_device_mesh(
            (len(members) // group_size, group_size), members, allow_split_physical_axes=True
        )
        for _, members in sorted(slices.items())
    ]
    return Mesh(np.concatenate(parts), AXES)


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of arrays that every device holds: parameters, statistics, metrics."""
    return NamedSharding(mesh, P())


def batched(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of arrays split along their first axis: images and labels."""
    return NamedSharding(mesh, P(AXES))


def abstract(tree: T, sharding: Sharding) -> T:
    """Returns the shapes and dtypes of a tree of arrays, real or abstract, with a sharding."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
    )


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Copies a tree of arrays, equal on all processes, to every device."""
    return _distribute(tree, replicated(mesh))


def shard_batch(batch: Any, mesh: Mesh) -> Any:
    """Builds global arrays, sharded over the mesh, from a tree of this process's NumPy rows.

    The rows go to this process's devices in the order of the mesh. Other processes may own devices
    in between.
    """
    return _distribute(batch, batched(mesh))


def _distribute(tree: Any, sharding: NamedSharding) -> Any:
    return jax.tree.map(
        lambda local: jax.make_array_from_process_local_data(sharding, np.asarray(local)), tree
    )


def process_order(mesh: Mesh, n: int) -> np.ndarray:
    """Returns the positions of n rows in an array that is split over the mesh, process by process.

    The rows that a process gives to `shard_batch` go to its `local_range(n)` of these positions.
    """
    owners = [device.process_index for device in mesh.devices.flat]
    return np.argsort(np.repeat(owners, n // mesh.size), kind="stable")


def local_rows(array: jax.Array) -> np.ndarray:
    """Returns this process's rows of a global array that is sharded over the mesh.

    Their order is that of the rows given to `shard_batch`.
    """
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards])


def local_range(n: int) -> range:
    """Returns the indices of this process's share of n rows."""
    return process_ranges(n)[jax.process_index()]


def process_ranges(n: int) -> list[range]:
    """Returns each process's share of n rows: contiguous, with sizes that differ by at most 1."""
    count = jax.process_count()
    return [range(n * i // count, n * (i + 1) // count) for i in range(count)]


def gather(rows: np.ndarray, n: int) -> np.ndarray:
    """Returns all n rows on every process, given the rows of `local_range(n)` on each."""
    sizes = [len(share) for share in process_ranges(n)]
    padding = np.zeros((max(sizes) - len(rows), *rows.shape[1:]), rows.dtype)
    padded_shares = _gather_equal(np.concatenate([rows, padding]))
    return np.concatenate([part[:size] for part, size in zip(padded_shares, sizes, strict=True)])


def sum_over_processes(number: int) -> int:
    """Returns the sum of the processes' numbers."""
    return int(_gather_equal(np.array([number])).sum())


def max_over_processes(number: int) -> int:
    """Returns the largest of the processes' numbers."""
    return int(_gather_equal(np.array([number])).max())


def _gather_equal(rows: np.ndarray) -> np.ndarray:
    """Stacks the processes' arrays, which have equal shapes."""
    if jax.process_count() == 1:
        return rows[None]
    return np.asarray(multihost_utils.process_allgather(rows))


def _gather_texts(text: str) -> list[str]:
    """Returns the processes' texts."""
    content = np.frombuffer(text.encode(), np.uint8)
    length = -(-max_over_processes(len(content)) // 4096) * 4096  # since each length is compiled
    rows = _gather_equal(np.pad(content, (0, length - len(content))))
    return [row.tobytes().rstrip(b"\0").decode() for row in rows]
