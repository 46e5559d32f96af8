"""Throughput of models, perhaps beside PyTorch."""

import dataclasses
import os
from collections.abc import Callable

import jax

from an_jax import zoo
from an_jax.benchmark import programs
from an_jax.benchmark.chips import PEAK_FLOPS
from an_jax.benchmark.out_of_memory import free_memory, who_ran_out
from an_jax.benchmark.timing import Times, measure, ratio
from an_jax.errors import InputError
from an_jax.zoo import cost

PROFILED_STEPS = 3


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        mode: "infer" or "train".
        batch_size: images a step; halved as long as memory does not suffice.
        image_size: side, pixels; None for each model's own.
        dtype: compute dtype.
        against_torch: whether PyTorch's twin runs by turns with ours.
        torch_compile: whether it does so also by torch.compile.
        repeats, seconds: how often each is timed, and about how long each time.
        profile: folder for a profile of some steps of ours; None for no profile.
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
class Step:
    """Of one program, ours or PyTorch's.

    Attributes:
        step_time: of the median step, milliseconds.
        step_time_range: of the fastest and the slowest repeat, milliseconds.
        compile_seconds, memory_gib: see Program.
    """

    step_time: float
    step_time_range: tuple[float, float]
    compile_seconds: float | None
    memory_gib: float | None


@dataclasses.dataclass(frozen=True)
class Throughput(Step):
    """Of one model; the step is ours.

    Attributes:
        model, mode, dtype, img_size, batch_size: what ran.
        samples_per_sec: images a second, from the median step.
        param_count: parameters, millions.
        gmacs, macts: multiply-accumulates (10^9) and activations (10^6) of one image; see cost.
        tflops: 10^12 floating-point operations a second: two for each multiply-accumulate, and
            three times as many in a training step.
        utilisation: their share of the chip's peak in bfloat16, whatever the dtype; None of chips
            without a known peak.
        torch: the steps of PyTorch by name: "eager", "compile".
        ratio: PyTorch's shortest step time over ours: above 1, ours is faster.
        ratio_range: the least and the largest of one turn.
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
    utilisation: float | None
    torch: dict[str, Step]
    ratio: float | None = None
    ratio_range: tuple[float, float] | None = None


def measure_model(name: str, settings: Settings, say: Callable[[str], None]) -> Throughput:
    """Measures one model; with a smaller batch where memory does not suffice.

    Args:
        name: of the zoo.
        settings: see there.
        say: receives a line where something is not as asked for.

    Raises:
        InputError: not even one image fits, or there is no twin in PyTorch.
    """
    size = settings.image_size or zoo.get_architecture(name).preprocessing.image_size
    batch_size = settings.batch_size
    while True:
        free_memory()  # of the model before, or of the larger batch
        try:
            steps, compared = _run(name, batch_size, size, settings, say)
            break
        except Exception as error:  # its traceback, which holds the arrays, ends with this block
            who = who_ran_out(error)
            if who is None:
                raise
        if batch_size == 1:
            raise InputError(
                f"{name}: {who} is out of memory even with one image: use smaller images"
            )
        batch_size //= 2
        say(f"{name}: {who} is out of memory; trying batches of {batch_size}")
    ours = steps.pop("ours")
    parts = cost.summarize(name, size)
    gmacs = sum(part.macs for part in parts) / 1e9
    operations = gmacs * {"infer": 2, "train": 6}[settings.mode]
    tflops = operations * batch_size / ours.step_time
    peak = PEAK_FLOPS.get(jax.devices()[0].device_kind)
    return Throughput(
        **vars(ours),
        model=name,
        mode=settings.mode,
        dtype=settings.dtype,
        img_size=size,
        batch_size=batch_size,
        samples_per_sec=1e3 * batch_size / ours.step_time,
        param_count=sum(part.params for part in parts) / 1e6,
        gmacs=gmacs,
        macts=sum(part.activations for part in parts) / 1e6,
        tflops=tflops,
        utilisation=peak and 1e12 * tflops / peak,
        torch=steps,
        **compared,
    )


def _run(name, batch_size, size, settings, say) -> tuple[dict[str, Step], dict]:
    """The steps of each program, and what `timing.ratio` says of ours and PyTorch's fastest."""
    make = {"infer": programs.inference, "train": programs.training}[settings.mode]
    found = {"ours": make(name, batch_size, size, settings.dtype)}
    if settings.against_torch:
        from an_jax.benchmark import torch_programs  # torch is not needed otherwise

        make = {"infer": torch_programs.inference, "train": torch_programs.training}[settings.mode]
        found["eager"] = make(name, batch_size, size, settings.dtype, compiled=False)
        if settings.torch_compile:
            try:
                found["compile"] = make(name, batch_size, size, settings.dtype, compiled=True)
            except Exception as error:  # whatever a compiler may not find on a machine
                if who_ran_out(error):
                    raise
                reason = " ".join(str(error).split())[:200]
                say(f"{name}: torch.compile failed, only eager PyTorch is compared: {reason}")
    runs = {key: program.run for key, program in found.items()}
    times = measure(runs, repeats=settings.repeats, seconds=settings.seconds)
    if settings.profile:
        with jax.profiler.trace(os.path.join(settings.profile, name)):
            found["ours"].run(PROFILED_STEPS)
    steps = {key: _step(program, times[key]) for key, program in found.items()}
    twins = [t for key, t in times.items() if key != "ours"]
    if not twins:
        return steps, {}
    return steps, ratio("ratio", times["ours"], min(twins, key=lambda t: t.median))


def _step(program: programs.Program, times: Times) -> Step:
    gib = program.memory_bytes and program.memory_bytes / 2**30
    extremes = (1e3 * times.least, 1e3 * times.largest)
    return Step(1e3 * times.median, extremes, program.compile_seconds, gib)
