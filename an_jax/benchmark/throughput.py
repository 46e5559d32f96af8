"""Throughput of a model, optionally compared with PyTorch."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import jax

from an_jax import zoo
from an_jax.benchmark import programs
from an_jax.benchmark.chips import GIB, PEAK_FLOPS
from an_jax.benchmark.programs import Program
from an_jax.benchmark.timing import Times, measure, ratio
from an_jax.errors import InputError, one_line
from an_jax.out_of_memory import free_memory, who_ran_out
from an_jax.zoo import cost

PROFILED_STEPS = 3

Log = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a measurement.

    Attributes:
        mode: "infer" or "train".
        batch_size: images a step; halved while memory does not suffice.
        image_size: side of the images, pixels; None for each model's own.
        dtype: compute dtype.
        against_torch: measure PyTorch's eager mode too.
        torch_compile: measure torch.compile too.
        repeats, seconds: number of turns, and approximate length of each.
        profile: folder for a profile of some steps; None for no profile.
    """

    mode: str
    batch_size: int
    image_size: int | None
    dtype: str
    against_torch: bool
    torch_compile: bool
    repeats: int
    seconds: float
    profile: str | None


@dataclasses.dataclass(frozen=True)
class StepTimes:
    """Times of a step of one program.

    Attributes:
        step_time: of the median turn, milliseconds.
        step_time_range: of the fastest and the slowest turn, milliseconds.
        compile_seconds, memory_gib: see Program.
    """

    step_time: float
    step_time_range: tuple[float, float]
    compile_seconds: float | None
    memory_gib: float | None


@dataclasses.dataclass(frozen=True)
class Throughput(StepTimes):
    """Throughput of one model; the inherited attributes are those of the JAX program.

    Attributes:
        model, mode, dtype, img_size, batch_size: what ran.
        samples_per_sec: images a second, from the median step.
        param_count: parameters, millions.
        gmacs, macts: multiply-accumulates (10^9) and activations (10^6) of one image; see cost.
        tflops: 10^12 floating-point operations a second: two for each multiply-accumulate, and
            three times as many in a training step.
        utilization: `tflops` over the chip's bfloat16 peak, whatever the dtype; None if the peak
            is unknown.
        torch: PyTorch's steps by name: "eager", "compile".
        ratio: PyTorch's shortest median step time over JAX's; above 1, JAX is faster.
        ratio_range: least and largest ratio within one turn.
    """

    model: str
    mode: str
    dtype: str
    img_size: int
    batch_size: int
    samples_per_sec: float
    param_count: float
    gmacs: float
    macts: float
    tflops: float
    utilization: float | None
    torch: dict[str, StepTimes]
    ratio: float | None = None
    ratio_range: tuple[float, float] | None = None


def measure_model(name: str, settings: Settings, log: Log) -> Throughput:
    """Measures one model. Halves the batch while memory does not suffice.

    Args:
        name: model of the zoo.
        settings: see Settings.
        log: called with a line for each setting that could not be used.

    Raises:
        InputError: not even one image fits, or the model has no PyTorch counterpart.
    """
    size = settings.image_size or zoo.get_architecture(name).preprocessing.image_size
    batch_size = settings.batch_size
    while True:
        free_memory()  # of the previous model, or of the larger batch
        try:
            steps, comparison = _measure_steps(name, batch_size, size, settings, log)
            break
        except Exception as error:  # the traceback, which holds the arrays, ends with this block
            culprit = who_ran_out(error)
            if culprit is None:
                raise
        if batch_size == 1:
            raise InputError(
                f"{name}: {culprit} is out of memory even with one image: use a smaller "
                "--image_size"
            )
        batch_size //= 2
        log(f"{name}: {culprit} is out of memory; trying batches of {batch_size}")
    step = steps.pop("jax")
    parts = cost.summarize(name, size)
    gmacs = sum(part.macs for part in parts) / 1e9
    operations = gmacs * {"infer": 2, "train": 6}[settings.mode]
    tflops = operations * batch_size / step.step_time
    peak = PEAK_FLOPS.get(jax.devices()[0].device_kind)
    return Throughput(
        **vars(step),
        model=name,
        mode=settings.mode,
        dtype=settings.dtype,
        img_size=size,
        batch_size=batch_size,
        samples_per_sec=1e3 * batch_size / step.step_time,
        param_count=sum(part.params for part in parts) / 1e6,
        gmacs=gmacs,
        macts=sum(part.activations for part in parts) / 1e6,
        tflops=tflops,
        utilization=peak and 1e12 * tflops / peak,
        torch=steps,
        **comparison,
    )


def _measure_steps(
    name: str, batch_size: int, size: int, settings: Settings, log: Log
) -> tuple[dict[str, StepTimes], dict[str, Any]]:
    """Returns the step of each program, and the ratio of JAX to the fastest of PyTorch."""
    build = programs.inference if settings.mode == "infer" else programs.training
    measured = {"jax": build(name, batch_size, size, settings.dtype)}
    if settings.against_torch:
        measured |= _build_torch(name, batch_size, size, settings, log)
    runs = {key: program.run for key, program in measured.items()}
    times = measure(runs, repeats=settings.repeats, seconds=settings.seconds)
    if settings.profile:
        with jax.profiler.trace(os.path.join(settings.profile, name)):
            measured["jax"].run(PROFILED_STEPS)
    steps = {key: _to_step(program, times[key]) for key, program in measured.items()}
    others = [values for key, values in times.items() if key != "jax"]
    if not others:
        return steps, {}
    return steps, ratio("ratio", times["jax"], min(others, key=lambda values: values.median))


def _build_torch(
    name: str, batch_size: int, size: int, settings: Settings, log: Log
) -> dict[str, Program]:
    from an_jax.benchmark.pytorch import programs as torch_programs  # torch is optional

    build = torch_programs.inference if settings.mode == "infer" else torch_programs.training
    arguments = (name, batch_size, size, settings.dtype)
    built = {"eager": build(*arguments, use_compile=False)}
    if settings.torch_compile:
        try:
            built["compile"] = build(*arguments, use_compile=True)
        except Exception as error:  # torch.compile depends on compilers that a machine may lack
            if who_ran_out(error):
                raise
            reason = one_line(error, limit=200)
            log(f"{name}: torch.compile failed, only eager PyTorch is compared: {reason}")
    return built


def _to_step(program: Program, times: Times) -> StepTimes:
    return StepTimes(
        step_time=1e3 * times.median,
        step_time_range=(1e3 * times.least, 1e3 * times.largest),
        compile_seconds=program.compile_seconds,
        memory_gib=program.memory_bytes and program.memory_bytes / GIB,
    )
