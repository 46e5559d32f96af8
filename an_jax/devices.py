"""The devices that jax uses, and a warning if it overlooks an accelerator."""

import glob
import os
import sys

import jax

# Device files of an accelerator -> its kind.
DEVICE_FILES = {
    "/dev/nvidia[0-9]*": "an NVIDIA GPU",
    "/dev/accel[0-9]*": "a TPU",
    "/dev/vfio/[0-9]*": "a TPU",
}


def describe_devices() -> str:
    """Returns the number and kind of the devices, and the number of processes."""
    devices, processes = jax.devices(), jax.process_count()
    kinds = ", ".join(sorted({device.device_kind for device in devices}))
    return (
        f"{len(devices)} device{'s' if len(devices) > 1 else ''} ({kinds}), "
        f"{processes} process{'es' if processes > 1 else ''}"
    )


def warn_of_unused_accelerator() -> None:
    """Prints a warning if the machine has an accelerator and jax uses the CPU.

    A user who has set JAX_PLATFORMS wants the CPU.
    """
    if os.environ.get("JAX_PLATFORMS") or jax.default_backend() != "cpu":
        return
    found = [(path, kind) for files, kind in DEVICE_FILES.items() for path in glob.glob(files)]
    if found:
        path, kind = found[0]
        print(
            f"warning: {path} shows that this machine has {kind}, but jax uses the CPU. Install "
            "the extra cuda, cuda12 or tpu (see README.md), or set JAX_PLATFORMS=cpu",
            file=sys.stderr,
        )
