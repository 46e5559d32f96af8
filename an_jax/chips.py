"""What accelerators can do at best."""

import dataclasses

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """A TPU generation: memory of a chip (bytes), its bandwidth (bytes/s), peak bfloat16 FLOP/s.

    Figures of Google's Cloud TPU documentation.
    """

    hbm: float
    bandwidth: float
    flops: float


TPUS = {
    "v4": Chip(32 * GIB, 1228e9, 275e12),
    "v5e": Chip(16 * GIB, 819e9, 197e12),
    "v5p": Chip(95 * GIB, 2765e9, 459e12),
    "v6e": Chip(32 * GIB, 1640e9, 918e12),
}
