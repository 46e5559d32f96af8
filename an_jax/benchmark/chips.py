"""Memory, bandwidth and peak FLOP/s of accelerators."""

import dataclasses

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip of a TPU generation. The figures are those of the Cloud TPU documentation.

    Attributes:
        hbm: memory, bytes.
        bandwidth: of the memory, bytes/s.
        flops: peak bfloat16 FLOP/s.
        interconnect: bandwidth to other chips, both directions together, bytes/s.
    """

    hbm: float
    bandwidth: float
    flops: float
    interconnect: float


TPUS = {
    "v4": Chip(32 * GIB, 1228e9, 275e12, 600e9),
    "v5e": Chip(16 * GIB, 819e9, 197e12, 400e9),
    "v5p": Chip(95 * GIB, 2765e9, 459e12, 1200e9),
    "v6e": Chip(32 * GIB, 1640e9, 918e12, 800e9),
}

# Peak dense bfloat16 FLOP/s by `device_kind`, JAX's name of a chip.
PEAK_FLOPS = {
    # NVIDIA's data sheets. Their larger figures assume sparse matrices.
    "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 80GB HBM3": 989e12,  # SXM
    "NVIDIA H200": 989e12,
    "TPU v4": TPUS["v4"].flops,
    "TPU v5 lite": TPUS["v5e"].flops,
    "TPU v5e": TPUS["v5e"].flops,
    "TPU v5": TPUS["v5p"].flops,
    "TPU v5p": TPUS["v5p"].flops,
    "TPU v6 lite": TPUS["v6e"].flops,
    "TPU v6e": TPUS["v6e"].flops,
}
