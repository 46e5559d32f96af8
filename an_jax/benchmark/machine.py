"""What a benchmark ran on."""

import os
import platform
from pathlib import Path

import jax


def describe_machine(with_torch: bool) -> dict[str, str | int]:
    """Device, processor, cores, and versions of what computes.

    Args:
        with_torch: whether PyTorch takes part.
    """
    device = jax.devices()[0]
    found = {
        "device": device.device_kind,
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "matmul_precision": jax.config.jax_default_matmul_precision or "default",
        "GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", ""),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", ""),
        "XLA_PYTHON_CLIENT_PREALLOCATE": os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE", ""),
    }
    if with_torch:
        from an_jax.benchmark import torch_programs

        found |= torch_programs.describe()
    return {key: value for key, value in found.items() if value}


def _processor() -> str:
    """Its model name where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
