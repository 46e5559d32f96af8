"""The devices that jax uses, and a warning if it overlooks an accelerator or other hosts."""

import glob
import os
import re
import sys
from pathlib import Path

import jax

from an_jax.errors import InputError

# Device files of an accelerator -> its kind.
DEVICE_FILES = {
    "/dev/nvidia[0-9]*": "an NVIDIA GPU",
    "/dev/accel[0-9]*": "a TPU",
    "/dev/vfio/[0-9]*": "a TPU",
}
PCI_DEVICES = "/sys/bus/pci/devices/*/modalias"  # visible in containers without device files
_TPU_ON_PCI = re.compile("pci:v00001AE0d000000(27|56|5E|62|63|6F|76)")  # v2 to TPU7x


def describe_devices() -> str:
    """Returns the number and kind of the devices, and the number of processes."""
    devices, processes = jax.devices(), jax.process_count()
    kinds = ", ".join(sorted({device.device_kind for device in devices}))
    return (
        f"{len(devices)} device{'s' if len(devices) > 1 else ''} ({kinds}), "
        f"{processes} process{'es' if processes > 1 else ''}"
    )


def check_devices() -> None:
    """Warns if jax uses the CPU beside an accelerator.

    A user who has set JAX_PLATFORMS wants the CPU.

    Raises:
        InputError: this is one of several hosts of a TPU pod, and runs without the others.
    """
    hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "").split(",")
    is_alone = os.environ.get("JAX_NUM_PROCESSES") == "1"  # as the user wants
    if len(hosts) > 1 and jax.process_count() == 1 and not is_alone:
        raise InputError(
            f"TPU_WORKER_HOSTNAMES names {len(hosts)} hosts, but this process runs without the "
            "others. Start the same command on all hosts, with the extra tpu installed (see "
            "README.md). To use this host alone, set JAX_NUM_PROCESSES=1"
        )
    if os.environ.get("JAX_PLATFORMS") or jax.default_backend() != "cpu":
        return
    sign = _find_accelerator()
    if sign:
        print(
            f"warning: {sign}, but jax uses the CPU. Install the extra cuda, cuda12 or tpu (see "
            "README.md), or set JAX_PLATFORMS=cpu",
            file=sys.stderr,
        )


def _find_accelerator() -> str | None:
    """Says what shows that this machine has an accelerator. Returns None without a sign."""
    for files, kind in DEVICE_FILES.items():
        for path in glob.glob(files):
            return f"{path} shows that this machine has {kind}"
    if os.environ.get("TPU_WORKER_ID"):
        return "TPU_WORKER_ID is set, which shows that this machine is a TPU VM"
    for path in glob.glob(PCI_DEVICES):
        if _TPU_ON_PCI.match(Path(path).read_text()):
            return f"{Path(path).parent} shows that this machine has a TPU"
    return None
