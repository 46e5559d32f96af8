"""Estimates of a training step on a TPU, from the TPU compiler; no TPU is needed."""

import dataclasses
import re
import time
from typing import Any

import jax
import ml_collections

from an_jax.benchmark.chips import GIB, TPUS, Chip
from an_jax.benchmark.collectives import (
    Exchange,
    count_collectives,
    describe_collectives,
    exposed_seconds,
)
from an_jax.benchmark.hbm_traffic import hbm_bytes
from an_jax.benchmark.tpu_compiler import lower_step, tpu_devices
from an_jax.training.norm_groups import make_norm_groups


@dataclasses.dataclass(frozen=True)
class StepCost:
    """Figures of a step on one chip.

    Attributes:
        argument_bytes: state and batch.
        temporary_bytes: activations and other temporaries.
        flops: floating-point operations by the compiler's count.
        bytes_moved: bytes moved to and from HBM, the chip's main memory.
    """

    argument_bytes: int
    temporary_bytes: int
    flops: float
    bytes_moved: float

    def roofline_seconds(self, chip: Chip) -> float:
        """Returns the least time of a step's work: the longer of computing and of moving data."""
        return max(self.flops / chip.flops, self.bytes_moved / chip.bandwidth)


@dataclasses.dataclass(frozen=True)
class Plan:
    """Estimates of one training step.

    Attributes:
        topology: such as "v5e:4x4".
        num_chips: number of chips of the topology.
        num_hosts: number of hosts of the topology.
        batch_per_chip: images on a chip.
        num_steps: updates of the whole recipe; None if the number of training images is unknown.
        hbm_bytes_per_chip: memory that the step needs on a chip, by the compiler's count.
        cost: None if the step does not fit: the compiler then reports only the memory it needs.
        collectives: what the chips exchange, by kind.
        compile_seconds: time to compile on this machine.
    """

    topology: str
    num_chips: int
    num_hosts: int
    batch_per_chip: int
    num_steps: int | None
    hbm_bytes_per_chip: int
    cost: StepCost | None
    collectives: dict[str, Exchange]
    compile_seconds: float

    @property
    def chip(self) -> Chip:
        """The kind of chip."""
        return TPUS[self.topology.split(":")[0]]

    def figures(self) -> dict[str, Any]:
        """Returns the figures for the JSON file, those of the cost as None if it is unknown."""
        cost = self.cost
        return {
            "topology": self.topology,
            "num_chips": self.num_chips,
            "num_hosts": self.num_hosts,
            "batch_per_chip": self.batch_per_chip,
            "num_steps": self.num_steps,
            "fits": cost is not None,
            "hbm_bytes_per_chip": self.hbm_bytes_per_chip,
            "argument_bytes": cost and cost.argument_bytes,
            "temporary_bytes": cost and cost.temporary_bytes,
            "flops_per_step_per_chip": cost and cost.flops,
            "bytes_per_step_per_chip": cost and cost.bytes_moved,
            "collectives": {
                kind: dataclasses.asdict(exchange) for kind, exchange in self.collectives.items()
            },
            "exposed_seconds": cost and exposed_seconds(self.collectives, self.chip),
            "compile_seconds": self.compile_seconds,
        }


def make_plan(config: ml_collections.ConfigDict, topology: str) -> Plan:
    """Compiles the training step of a configuration for a TPU topology.

    Args:
        config: of training.config. Its data set is not read; a folder counts as 1000 classes.
        topology: generation and shape, such as "v5e:4x4".

    Raises:
        InputError: libtpu is not installed, there is no such topology, or the configuration is
            invalid on it.
    """
    # Importing these takes time.
    from an_jax.data.sets.train_sets import IMAGENET_SIZE
    from an_jax.data.train_pipeline import steps_per_epoch

    devices = tpu_devices(topology)
    lowered = lower_step(config, devices)
    num_hosts = len({device.process_index for device in devices})
    num_steps = None
    if config.dataset == "imagenet":
        num_steps = config.num_epochs * steps_per_epoch(IMAGENET_SIZE, config.batch_size)
    batch_per_chip = config.batch_size // len(devices)
    sizes = (topology, len(devices), num_hosts, batch_per_chip, num_steps)
    began = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        needed = _needed_bytes(str(error))
        if needed is None:
            raise
        seconds = time.perf_counter() - began
        return Plan(*sizes, needed, cost=None, collectives={}, compile_seconds=seconds)
    seconds = time.perf_counter() - began
    memory, cost, hlo = compiled.memory_analysis(), compiled.cost_analysis(), compiled.as_text()
    assert memory, "the TPU compiler reports all three"
    assert cost
    assert hlo
    groups = make_norm_groups(config.batch_size, config.norm_batch_size, len(devices))
    num_trips = groups.num_micro_batches
    flops = num_trips * cost["flops"]  # the compiler counts the loop over micro-batches once
    # The results reuse the state's memory.
    arguments = memory.argument_size_in_bytes + memory.output_size_in_bytes
    arguments -= memory.alias_size_in_bytes
    temporaries = memory.temp_size_in_bytes
    return Plan(
        *sizes,
        arguments + temporaries,
        cost=StepCost(arguments, temporaries, flops, hbm_bytes(hlo, num_trips)),
        collectives=count_collectives(hlo),
        compile_seconds=seconds,
    )


def _needed_bytes(error: str) -> int | None:
    """Returns the bytes that a program needs by the compiler's out-of-memory error, else None."""
    match = re.search(r"Used ([\d.]+)([MG]) of [\d.]+[MG] hbm", error)
    return int(float(match[1]) * {"M": 2**20, "G": GIB}[match[2]]) if match else None


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
    ]
    if plan.cost is None:
        lines.append(f"DOES NOT FIT: {memory}; choose a smaller batch_size or more chips")
    else:
        lines += [f"fits: {memory}", *_describe_step(plan, plan.cost)]
    return "\n".join(lines)


def _describe_step(plan: Plan, cost: StepCost) -> list[str]:
    exposed = exposed_seconds(plan.collectives, plan.chip)
    seconds = cost.roofline_seconds(plan.chip) + exposed
    return [
        f"  state and batch {cost.argument_bytes / GIB:.2f} GiB, "
        f"temporaries {cost.temporary_bytes / GIB:.2f} GiB",
        f"a step: {cost.flops / 1e12:.3f} TFLOP, {cost.bytes_moved / 1e9:.2f} GB moved a chip",
        f"roofline: at least {1000 * seconds:.1f} ms a step, at most "
        f"{plan.batch_per_chip / seconds:.0f} img/s a chip; {1000 * exposed:.1f} ms of it wait for "
        "other chips",
        *_describe_recipe(plan, seconds),
        *describe_collectives(plan.collectives),
    ]


def _describe_recipe(plan: Plan, seconds: float) -> list[str]:
    """Says what the whole recipe takes at `seconds` a step."""
    if plan.num_steps is None:
        return []
    hours = plan.num_steps * seconds / 3600
    chip_hours = hours * plan.num_chips
    rate = plan.num_chips * plan.batch_per_chip / plan.num_hosts / seconds
    return [
        f"the recipe: {plan.num_steps} steps in at least {hours:.3g} hours, "
        f"{chip_hours:.1f} chip-hours; at that rate each host "
        f"({plan.num_hosts} of them) reads {rate:.0f} img/s"
    ]
