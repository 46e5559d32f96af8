"""Throughput of models, in the columns of timm's benchmarks; perhaps beside PyTorch."""

import csv
import dataclasses
import gc
import io
import sys
from collections.abc import Callable

import jax

from an_jax import cost, zoo
from an_jax.benchmark import programs
from an_jax.benchmark.timing import Times, measure
from an_jax.errors import InputError


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
    """

    mode: str
    batch_size: int
    image_size: int | None
    dtype: str
    against_torch: bool
    torch_compile: bool
    repeats: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Throughput:
    """Of one model.

    Attributes:
        model, mode, dtype, img_size, batch_size: what ran.
        samples_per_sec: images a second, from the median step.
        step_time: of the median step, milliseconds.
        step_time_range: of the fastest and the slowest repeat, milliseconds.
        param_count: parameters, millions.
        gmacs, macts: multiply-accumulates (10^9) and activations (10^6) of one image; see cost.
        tflops: 10^12 floating-point operations a second: two for each multiply-accumulate, and
            three times as many in a training step.
        compile_seconds: to trace and compile.
        memory_gib: what the program needs of the device, by XLA's account.
        torch: step times (median, milliseconds) of PyTorch by name: "eager", "compile".
        ratio: PyTorch's shortest step time over ours: above 1, ours is faster.
    """

    model: str
    mode: str
    dtype: str
    img_size: int
    batch_size: int
    samples_per_sec: float
    step_time: float
    step_time_range: tuple[float, float]
    param_count: float
    gmacs: float
    macts: float
    tflops: float
    compile_seconds: float
    memory_gib: float
    torch: dict[str, float]
    ratio: float | None


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
        try:
            ours, times = _run(name, batch_size, size, settings, say)
            break
        except Exception as error:
            if not _is_out_of_memory(error):
                raise
        gc.collect()
        if batch_size == 1:
            raise InputError(f"{name}: out of memory even with one image: use smaller images")
        batch_size //= 2
        say(f"{name}: out of memory; trying batches of {batch_size}")
    mine = times.pop("ours")
    parts = cost.summarize(name, size)
    gmacs = sum(part.macs for part in parts) / 1e9
    operations = gmacs * {"infer": 2, "train": 6}[settings.mode]
    fastest = min((t.median for t in times.values()), default=None)
    return Throughput(
        model=name,
        mode=settings.mode,
        dtype=settings.dtype,
        img_size=size,
        batch_size=batch_size,
        samples_per_sec=batch_size / mine.median,
        step_time=1e3 * mine.median,
        step_time_range=(1e3 * mine.least, 1e3 * mine.largest),
        param_count=sum(part.params for part in parts) / 1e6,
        gmacs=gmacs,
        macts=sum(part.activations for part in parts) / 1e6,
        tflops=operations * batch_size / mine.median / 1e3,
        compile_seconds=ours.compile_seconds,
        memory_gib=ours.memory_bytes / 2**30,
        torch={key: 1e3 * t.median for key, t in times.items()},
        ratio=fastest and fastest / mine.median,
    )


def _run(name, batch_size, size, settings, say) -> tuple[programs.Program, dict[str, Times]]:
    make = {"infer": programs.inference, "train": programs.training}[settings.mode]
    ours = make(name, batch_size, size, settings.dtype)
    runs = {"ours": ours.run}
    if settings.against_torch:
        from an_jax.benchmark import torch_programs  # torch is not needed otherwise

        make = {"infer": torch_programs.inference, "train": torch_programs.training}[settings.mode]
        runs["eager"] = make(name, batch_size, size, settings.dtype, compiled=False).run
        if settings.torch_compile:
            try:
                program = make(name, batch_size, size, settings.dtype, compiled=True)
                runs["compile"] = program.run
            except Exception as error:  # whatever a compiler may not find on a machine
                if _is_out_of_memory(error):
                    raise
                reason = " ".join(str(error).split())[:200]
                say(f"{name}: torch.compile failed, only eager PyTorch is compared: {reason}")
    return ours, measure(runs, repeats=settings.repeats, seconds=settings.seconds)


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, jax.errors.JaxRuntimeError):
        return "RESOURCE_EXHAUSTED" in str(error) or "out of memory" in str(error).lower()
    torch = sys.modules.get("torch")
    is_torchs = torch is not None and isinstance(error, torch.OutOfMemoryError)
    return is_torchs or isinstance(error, MemoryError)


def csv_text(results: list[Throughput]) -> str:
    """A table as timm's benchmark-infer-*.csv and benchmark-train-*.csv, fastest first."""
    text = io.StringIO()
    writer = None
    for result in sorted(results, key=lambda r: -r.samples_per_sec):
        row = {
            "model": result.model,
            f"{result.mode}_img_size": result.img_size,
            f"{result.mode}_samples_per_sec": f"{result.samples_per_sec:.2f}",
            f"{result.mode}_step_time": f"{result.step_time:.3f}",
            f"{result.mode}_batch_size": result.batch_size,
            "param_count": f"{result.param_count:,.2f}",
        }
        if result.mode == "infer":
            row |= {"infer_gmacs": f"{result.gmacs:.2f}", "infer_macts": f"{result.macts:.2f}"}
        if writer is None:
            writer = csv.DictWriter(text, row.keys(), lineterminator="\n")
            writer.writeheader()
        writer.writerow(row)
    return text.getvalue()


def describe(result: Throughput) -> str:
    """One line for people."""
    least, largest = result.step_time_range
    line = (
        f"{result.model:24s} {result.mode} {result.dtype} {result.img_size} px, "
        f"batch {result.batch_size}: {result.samples_per_sec:.1f} img/s, "
        f"{result.step_time:.2f} ms a step ({least:.2f} to {largest:.2f}), "
        f"{result.tflops:.2f} TFLOP/s, compiled in {result.compile_seconds:.1f} s, "
        f"{result.memory_gib:.2f} GiB"
    )
    for name, milliseconds in result.torch.items():
        line += f"; PyTorch ({name}) {milliseconds:.2f} ms"
    return line if result.ratio is None else f"{line}; ratio {result.ratio:.2f}"
