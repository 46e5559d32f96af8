"""Estimates of a training step on a TPU, from the TPU compiler; no TPU is needed."""

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
    """Estimates of one training step.

    The attributes from `argument_bytes` to `bytes_per_step_per_chip` are None if the step does
    not fit, because the compiler then gives up.

    Attributes:
        topology: such as "v5e:4x4".
        num_chips: number of chips of the topology.
        batch_per_chip: images on a chip.
        fits: whether the step fits into a chip's memory.
        hbm_bytes_per_chip: memory that it needs on a chip: the sum of the next two, or the
            compiler's figure if the step does not fit.
        argument_bytes: state and batch.
        temporary_bytes: activations and other temporaries.
        flops_per_step_per_chip: floating-point operations by the compiler's count.
        bytes_per_step_per_chip: bytes moved to and from a chip's memory.
        collectives: kind -> {"count", "bytes"} exchanged with other chips.
        compile_seconds: time to compile on this machine.
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
        """The kind of chip."""
        return TPUS[self.topology.split(":")[0]]

    @property
    def roofline_seconds(self) -> float:
        """The least time of a step that fits: the longer of computing and of moving data.

        Exchange between chips is not included.
        """
        _, _, flops, moved = _figures(self)
        return max(flops / self.chip.flops, moved / self.chip.bandwidth)


def make_plan(config: ml_collections.ConfigDict, topology: str) -> Plan:
    """Compiles the training step of a configuration for a TPU topology.

    Args:
        config: of training.config. Its data set is not read; a folder counts as 1000 classes.
        topology: generation and shape, such as "v5e:4x4".

    Raises:
        InputError: libtpu is not installed, there is no such topology, or the configuration is
            invalid on it.
    """
    devices = tpu_devices(topology)
    lowered = lower_step(config, devices)
    sizes = (topology, len(devices), config.batch_size // len(devices))
    began = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        needed = _needed_bytes(str(error))
        if needed is None:
            raise
        seconds = time.perf_counter() - began
        return Plan(*sizes, False, needed, None, None, None, None, {}, seconds)
    seconds = time.perf_counter() - began
    memory, cost, hlo = compiled.memory_analysis(), compiled.cost_analysis(), compiled.as_text()
    assert memory, "the TPU compiler reports all three"
    assert cost
    assert hlo
    # The results reuse the state's memory.
    arguments = memory.argument_size_in_bytes + memory.output_size_in_bytes
    arguments -= memory.alias_size_in_bytes
    return Plan(
        *sizes,
        fits=True,
        hbm_bytes_per_chip=arguments + memory.temp_size_in_bytes,
        argument_bytes=arguments,
        temporary_bytes=memory.temp_size_in_bytes,
        flops_per_step_per_chip=cost["flops"],
        bytes_per_step_per_chip=cost["bytes accessed"],
        collectives=count_collectives(hlo),
        compile_seconds=seconds,
    )


def _needed_bytes(error: str) -> int | None:
    """Returns the bytes that a program needs by the compiler's out-of-memory error, else None."""
    match = re.search(r"Used ([\d.]+)([MG]) of [\d.]+[MG] hbm", error)
    return int(float(match[1]) * {"M": 2**20, "G": GIB}[match[2]]) if match else None


_KINDS = "all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all"
_COLLECTIVE = re.compile(rf"= (\(.*?\)|\S+) ({_KINDS})(-start)?\(")
_ARRAY = re.compile(r"\b([a-z]+)(\d+)\[([\d,]*)\]")


def count_collectives(hlo: str) -> dict[str, dict[str, int]]:
    """Counts the collectives in the text of a compiled program.

    Returns:
        kind -> {"count", "bytes"}, where "bytes" is the size of their results on one device.
    """
    count: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for result, kind, start in _COLLECTIVE.findall(hlo):
        arrays = _ARRAY.findall(result)
        if start and kind != "all-reduce":
            arrays = arrays[len(arrays) // 2 :]  # the first half are the operands
        count[kind] += 1
        for _, bits, shape in arrays:
            size[kind] += int(bits) // 8 * math.prod(int(n) for n in shape.split(",") if n)
    return {kind: {"count": count[kind], "bytes": size[kind]} for kind in sorted(count)}


def describe(plan: Plan) -> str:
    """Returns the plan as text."""
    hbm, chip = plan.hbm_bytes_per_chip, plan.chip
    memory = (
        f"{hbm / GIB:.2f} of {chip.hbm / GIB:.0f} GiB of memory a chip "
        f"({100 * hbm / chip.hbm:.0f} %)"
    )
    lines = [
        f"{plan.topology}: {plan.num_chips} chips, {plan.batch_per_chip} images on each; "
        f"compiled in {plan.compile_seconds:.0f} s; nothing has been run on a TPU",
        f"fits: {memory}"
        if plan.fits
        else f"DOES NOT FIT: {memory}; choose a smaller batch_size or more chips",
    ]
    if plan.fits:
        lines += _describe_step(plan)
    return "\n".join(lines)


def _describe_step(plan: Plan) -> list[str]:
    arguments, temporaries, flops, moved = _figures(plan)
    seconds = plan.roofline_seconds
    exchanged = [
        f"  {kind}: {total['count']} of {total['bytes'] / 1e6:.1f} MB together"
        for kind, total in plan.collectives.items()
    ]
    return [
        f"  state and batch {arguments / GIB:.2f} GiB, temporaries {temporaries / GIB:.2f} GiB",
        f"a step: {flops / 1e12:.3f} TFLOP, {moved / 1e9:.2f} GB moved a chip",
        f"roofline: at least {1000 * seconds:.1f} ms a step, at most "
        f"{plan.batch_per_chip / seconds:.0f} img/s a chip, without exchange between chips",
        *exchanged,
    ]


def _figures(plan: Plan) -> tuple[int, int, float, float]:
    """Returns the figures that a plan has if its step fits."""
    assert plan.argument_bytes is not None
    assert plan.temporary_bytes is not None
    assert plan.flops_per_step_per_chip is not None
    assert plan.bytes_per_step_per_chip is not None
    return (
        plan.argument_bytes,
        plan.temporary_bytes,
        plan.flops_per_step_per_chip,
        plan.bytes_per_step_per_chip,
    )
