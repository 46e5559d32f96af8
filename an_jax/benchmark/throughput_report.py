"""Throughput for people, and in the columns of timm's benchmarks."""

import csv
import io

from an_jax.benchmark.throughput import Step, Throughput


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
    line = (
        f"{result.model:24s} {result.mode} {result.dtype} {result.img_size} px, "
        f"batch {result.batch_size}: {result.samples_per_sec:.1f} img/s, {_describe_step(result)}, "
        f"{result.tflops:.2f} TFLOP/s"
    )
    if result.utilisation is not None:
        line += f" ({100 * result.utilisation:.0f} % of the chip's peak)"
    for name, step in result.torch.items():
        line += f"; PyTorch ({name}) {_describe_step(step)}"
    if result.ratio is None:
        return line
    least, largest = result.ratio_range
    return f"{line}; ratio {result.ratio:.2f} ({least:.2f} to {largest:.2f})"


def _describe_step(step: Step) -> str:
    least, largest = step.step_time_range
    text = f"{step.step_time:.2f} ms a step ({least:.2f} to {largest:.2f})"
    if step.compile_seconds is not None:
        text += f", compiled in {step.compile_seconds:.1f} s"
    return text if step.memory_gib is None else f"{text}, {step.memory_gib:.2f} GiB"
