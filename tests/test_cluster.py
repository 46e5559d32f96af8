"""Whether a process joins others, by what the environment says, and what it says if they fail."""

import os
import socket
import sys
import types

import jax
import pytest

from an_jax import parallel
from an_jax.errors import InputError
from tests.processes import finish, start

SLURM = {"SLURM_JOB_ID": "4711", "SLURM_STEP_NODELIST": "node[1-2]", "SLURM_LOCALID": "0"}
SLURM |= {"SLURM_PROCID": "0", "SLURM_STEP_NUM_NODES": "2"}
MPI = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_SIZE": "1"}
KUBERNETES = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
GIVEN = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
TWO = {"num_processes": 2, "process_id": 1}


@pytest.fixture(autouse=True)
def without_cluster(monkeypatch):
    for name in os.environ:
        if name.startswith(("SLURM", "OMPI", "KUBERNETES", "JOB_", "TPU_", "JAX_COO", "JAX_PRO")):
            monkeypatch.delenv(name)


@pytest.fixture
def joined(monkeypatch):
    """The arguments of each call of jax.distributed.initialize."""
    calls = []

    def initialize(*, initialization_timeout, heartbeat_timeout_seconds, **arguments):
        assert arguments.pop("shutdown_timeout_seconds") == 60
        assert (initialization_timeout, heartbeat_timeout_seconds) == (360, 100)
        calls.append(arguments)

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    return calls


def set_environment(monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("variables", "arguments"),
    [
        (SLURM | {"SLURM_NTASKS": "1"}, None),
        (SLURM | {"SLURM_NTASKS": "8"}, {}),
        (SLURM | {"SLURM_NTASKS": "2"}, {"local_device_ids": []}),  # all GPUs of each machine
        (SLURM | {"SLURM_NTASKS": "2", "JAX_LOCAL_DEVICE_IDS": "0"}, {}),
        (SLURM | {"SLURM_NTASKS": "8", "JAX_NUM_PROCESSES": "1"}, None),
        (SLURM | {"SLURM_NTASKS": "1"} | MPI, {"local_device_ids": []}),
        (MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, {}),
        (MPI | {"OMPI_COMM_WORLD_SIZE": "1"}, None),
        (SLURM | {"SLURM_NTASKS": "1"} | GIVEN, TWO),
        (GIVEN, TWO | {"cluster_detection_method": "deactivate"}),
        (GIVEN | KUBERNETES, TWO | {"cluster_detection_method": "deactivate"}),
        (KUBERNETES, None),
        (KUBERNETES | {"JOB_COMPLETION_INDEX": "0"}, {}),
        (KUBERNETES | {"TPU_WORKER_HOSTNAMES": "a,b"}, {}),
        ({}, {}),  # jax looks for a TPU pod
    ],
)
def test_arguments(monkeypatch, joined, variables, arguments):
    set_environment(monkeypatch, variables)
    parallel.initialize()
    assert joined == ([] if arguments is None else [arguments])


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"JAX_NUM_PROCESSES": "2"}, "coordinator_address should be defined. Set JAX_COORDINATOR"),
        ({"JAX_NUM_PROCESSES": "two"}, "invalid literal .*JAX_NUM_PROCESSES=1 to run this process"),
        (KUBERNETES | {"JOB_COMPLETION_INDEX": "0"}, "no service account. Set"),
    ],
)
def test_processes_that_cannot_find_each_other(monkeypatch, variables, message):
    """Kubernetes' own errors end without a traceback too."""

    def load_incluster_config():
        raise Exception("no service account")

    kubernetes = types.ModuleType("kubernetes")
    kubernetes.config = types.SimpleNamespace(load_incluster_config=load_incluster_config)
    monkeypatch.setitem(sys.modules, "kubernetes", kubernetes)
    monkeypatch.setattr("jax._src.xla_bridge.backends_are_initialized", lambda: False)
    set_environment(monkeypatch, variables)
    with pytest.raises(InputError, match=f"the processes cannot find each other: {message}"):
        parallel.initialize()


@pytest.mark.parametrize("process", [0, 1])
def test_a_process_is_missing(tmp_path, process):
    """The other one says so, within the time that a flag gives, and ends."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    command = [
        ("train.py", "--config=configs/digits.py:bn", f"--workdir={tmp_path}"),
        ("evaluate.py", "--checkpoint=none", f"--output_dir={tmp_path}"),
    ][process]
    job = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    waiting = start(*command, "--initialization_timeout=1", JAX_PROCESS_ID=str(process), **job)
    ((status, out, err),) = finish(waiting)
    assert (status, out) == (1, "")
    assert err == (
        f"error: {socket.gethostname()} has waited 1 seconds (--initialization_timeout) for the "
        "other processes of the job. Run the same command on every host, and check that all hosts "
        f"can reach process 0 at {address} (JAX_COORDINATOR_ADDRESS)\n"
    )


def test_a_single_process(monkeypatch):
    monkeypatch.setattr("jax._src.xla_bridge.backends_are_initialized", lambda: False)
    parallel.initialize()
    assert not jax.distributed.is_initialized()
