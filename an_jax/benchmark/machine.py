"""A description of the machine that a benchmark runs on."""

import os
import platform
from pathlib import Path

import jax

from an_jax.jax_settings import matmul_precision


def describe_machine(with_torch: bool) -> dict[str, str | int]:
    """Returns the device, the processor, its cores, and the versions and settings that matter.

    Args:
        with_torch: whether PyTorch was measured too.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    machine: dict[str, str | int] = {
        "device": jax.devices()[0].device_kind,
        "processor": _processor(),
        "cores": cores,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "matmul_precision": matmul_precision() or "default",
    }
    for name in ("GLIBC_TUNABLES", "OMP_NUM_THREADS", "XLA_PYTHON_CLIENT_PREALLOCATE"):
        machine[name] = os.environ.get(name, "")
    if with_torch:
        from an_jax.benchmark.pytorch import programs

        machine |= programs.describe()
    return {key: value for key, value in machine.items() if value}


def _processor() -> str:
    """Returns the processor's model name where Linux provides it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
