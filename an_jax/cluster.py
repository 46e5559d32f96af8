"""The job that this process belongs to: what the environment says about it, and its start."""

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any


def distributed_arguments() -> dict[str, Any] | None:
    """Returns arguments for `jax.distributed.initialize`, or None if this process is alone.

    jax detects TPU pods and the jobs of SLURM, Open MPI and Kubernetes. This function changes three
    things: a job of one process starts no coordination service, whose port a second command of
    the job would need too; one process per machine uses all GPUs, not one; and a pod of Kubernetes
    that is no part of an indexed job is alone.

    Raises:
        ValueError: JAX_NUM_PROCESSES or JAX_PROCESS_ID is no integer.
    """
    given: dict[str, Any] = {
        argument: int(os.environ[variable])
        for argument, variable in (
            ("num_processes", "JAX_NUM_PROCESSES"),
            ("process_id", "JAX_PROCESS_ID"),
        )
        if variable in os.environ
    }
    # Of a job that mpirun has started within one of SLURM, Open MPI's variables count.
    launched = os.environ.get("OMPI_COMM_WORLD_SIZE", os.environ.get("SLURM_NTASKS"))
    if given.get("num_processes", int(launched or 0)) == 1:
        return None
    if launched:
        return given | ({"local_device_ids": []} if _is_alone_on_machine() else {})
    if len(given) == 2 and "JAX_COORDINATOR_ADDRESS" in os.environ:
        return given | {"cluster_detection_method": "deactivate"}  # nothing is left to detect
    return None if not given and _is_single_pod() else given


@contextlib.contextmanager
def limiting_start(seconds: float) -> Iterator[None]:
    """Ends this process with an error if the body, in which it joins the others, takes longer.

    jax itself would abort the process and say that another one has died.
    """
    timer = threading.Timer(seconds, _give_up, (seconds,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _give_up(seconds: float) -> None:
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    where = f" at {address} (JAX_COORDINATOR_ADDRESS)" if address else ""
    print(
        f"error: {socket.gethostname()} has waited {seconds:g} seconds (--initialization_timeout) "
        "for the other processes of the job. Run the same command on every host, and check that "
        f"all hosts can reach process 0{where}",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)


def _is_alone_on_machine() -> bool:
    """Whether SLURM or Open MPI runs one process on each machine."""
    if "JAX_LOCAL_DEVICE_IDS" in os.environ:
        return False  # the user chooses the GPUs
    if "OMPI_COMM_WORLD_LOCAL_SIZE" in os.environ:
        return os.environ["OMPI_COMM_WORLD_LOCAL_SIZE"] == "1"
    return os.environ["SLURM_NTASKS"] == os.environ.get("SLURM_STEP_NUM_NODES")


def _is_single_pod() -> bool:
    """Whether this is a pod of Kubernetes that neither an indexed job nor a TPU slice contains."""
    members = ("JOB_COMPLETION_INDEX", "TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES")
    return "KUBERNETES_SERVICE_HOST" in os.environ and not any(m in os.environ for m in members)
