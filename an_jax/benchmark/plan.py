"""What a training step would need on a TPU, by the TPU compiler's own count; no TPU is needed."""

import dataclasses
import math
import re
import time
from collections import Counter

import jax
import ml_collections

from an_jax.benchmark.chips import GIB, TPUS, Chip
from an_jax.benchmark.tpu_compiler import lower_step, tpu_devices


@dataclasses.dataclass(frozen=True)
class Plan:
    """Of one training step; everything is of one chip.

    Attributes:
        topology: such as "v5e:4x4".
        num_chips: how many it has.
        batch_per_chip: images.
        fits: whether the step fits into the chip's memory.
        hbm_bytes_per_chip: what it needs of that: the sum of the next two, or the compiler's
            figure where it gave up.
        argument_bytes: state and batch; None where the compiler gave up, as all that follows.
        temporary_bytes: activations and the like.
        flops_per_step_per_chip: as the compiler counts.
        bytes_per_step_per_chip: moved to and from the chip's memory.
        collectives: kind -> {"count", "bytes"} exchanged with other chips.
        compile_seconds: on this machine.
    """

    topology: str
    num_chips: int
    batch_per_chip: int
    fits: bool
    hbm_bytes_per_chip: int
    argument_bytes: int | None
    temporary_bytes: int | None
    flops_per_step_per_chip: float | None
    bytes_per_step_per_chip: float | None
    collectives: dict[str, dict[str, int]]
    compile_seconds: float

    @property
    def chip(self) -> Chip:
        """Of the topology."""
        return TPUS[self.topology.split(":")[0]]

    @property
    def roofline_seconds(self) -> float:
        """The least time of a step: the longer of computing and moving; exchange is not in it."""
        return max(
            self.flops_per_step_per_chip / self.chip.flops,
            self.bytes_per_step_per_chip / self.chip.bandwidth,
        )


def make_plan(config: ml_collections.ConfigDict, topology: str) -> Plan:
    """Compiles the training step of a configuration for a TPU topology.

    Args:
        config: of training.config; its data are not looked at (a folder's classes count as 1000).
        topology: generation and shape, such as "v5e:4x4".

    Raises:
        InputError: libtpu is not installed, there is no such topology, or the configuration is
            impossible on it.
    """
    devices = tpu_devices(topology)
    lowered = lower_step(config, devices)
    began = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        needed = re.search(r"Used ([\d.]+)([MG]) of [\d.]+[MG] hbm", str(error))
        if not needed:
            raise
        compiled, hbm = None, float(needed[1]) * (GIB if needed[2] == "G" else 2**20)
    seconds = time.perf_counter() - began
    common = (topology, len(devices), config.batch_size // len(devices))
    if compiled is None:
        return Plan(*common, False, int(hbm), None, None, None, None, {}, seconds)
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    # The state's memory is taken over by the results.
    arguments = memory.argument_size_in_bytes + memory.output_size_in_bytes
    arguments -= memory.alias_size_in_bytes
    return Plan(
        *common,
        True,
        arguments + memory.temp_size_in_bytes,
        arguments,
        memory.temp_size_in_bytes,
        cost["flops"],
        cost["bytes accessed"],
        count_collectives(compiled.as_text()),
        seconds,
    )


_KINDS = "all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all"
_COLLECTIVE = re.compile(rf"= (\(.*?\)|\S+) ({_KINDS})(-start)?\(")
_ARRAY = re.compile(r"\b([a-z]+)(\d+)\[([\d,]*)\]")


def count_collectives(hlo: str) -> dict[str, dict[str, int]]:
    """Kind -> {"count", "bytes"} of the collectives in a compiled program's text; bytes of what
    they result in on one device."""
    count, size = Counter(), Counter()
    for result, kind, start in _COLLECTIVE.findall(hlo):
        arrays = _ARRAY.findall(result)
        if start and kind != "all-reduce":
            arrays = arrays[len(arrays) // 2 :]  # the first half are the operands
        count[kind] += 1
        for _, bits, shape in arrays:
            size[kind] += int(bits) // 8 * math.prod(int(n) for n in shape.split(",") if n)
    return {kind: {"count": count[kind], "bytes": size[kind]} for kind in sorted(count)}


def describe(plan: Plan) -> str:
    """The plan in words and figures."""
    hbm, chip = plan.hbm_bytes_per_chip, plan.chip
    lines = [
        f"{plan.topology}: {plan.num_chips} chips, {plan.batch_per_chip} images on each; "
        f"compiled in {plan.compile_seconds:.0f} s; nothing has been run on a TPU",
        f"{'fits' if plan.fits else 'DOES NOT FIT'}: {hbm / GIB:.2f} of {chip.hbm / GIB:.0f} GiB "
        f"of memory a chip ({100 * hbm / chip.hbm:.0f} %)"
        + ("" if plan.fits else "; choose a smaller batch_size or more chips"),
    ]
    if plan.fits:
        seconds = plan.roofline_seconds
        lines += [
            f"  state and batch {plan.argument_bytes / GIB:.2f} GiB, "
            f"temporaries {plan.temporary_bytes / GIB:.2f} GiB",
            f"a step: {plan.flops_per_step_per_chip / 1e12:.3f} TFLOP, "
            f"{plan.bytes_per_step_per_chip / 1e9:.2f} GB moved a chip",
            f"roofline: at least {1000 * seconds:.1f} ms a step, at most "
            f"{plan.batch_per_chip / seconds:.0f} img/s a chip, without exchange between chips",
        ]
        lines += [
            f"  {kind}: {found['count']} of {found['bytes'] / 1e6:.1f} MB together"
            for kind, found in plan.collectives.items()
        ]
    return "\n".join(lines)
