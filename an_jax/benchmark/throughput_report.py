"""Throughput as a line of text, and as a table with timm's columns."""

import csv
import io

from an_jax.benchmark.throughput import StepTimes, Throughput


def csv_text(results: list[Throughput]) -> str:
    """Returns a table like timm's benchmark-{infer,train}-*.csv, the fastest model first."""
    rows = [_row(result) for result in sorted(results, key=lambda r: -r.samples_per_sec)]
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _row(result: Throughput) -> dict[str, str | int]:
    row: dict[str, str | int] = {
        "model": result.model,
        f"{result.mode}_img_size": result.img_size,
        f"{result.mode}_samples_per_sec": f"{result.samples_per_sec:.2f}",
        f"{result.mode}_step_time": f"{result.step_time:.3f}",
        f"{result.mode}_batch_size": result.batch_size,
        "param_count": f"{result.param_count:,.2f}",
    }
    if result.mode == "infer":
        row |= {"infer_gmacs": f"{result.gmacs:.2f}", "infer_macts": f"{result.macts:.2f}"}
    return row


def describe(result: Throughput) -> str:
    """Returns one line that summarizes a result."""
    line = (
        f"{result.model:24s} {result.mode} {result.dtype} {result.img_size} px, "
        f"batch {result.batch_size}: {result.samples_per_sec:.1f} img/s, {_describe_step(result)}, "
        f"{result.tflops:.2f} TFLOP/s"
    )
    if result.utilization is not None:
        line += f" ({100 * result.utilization:.0f} % of the chip's peak)"
    for name, step in result.torch.items():
        line += f"; PyTorch ({name}) {_describe_step(step)}"
    if result.ratio is not None and result.ratio_range is not None:
        least, largest = result.ratio_range
        line += f"; ratio {result.ratio:.2f} ({least:.2f} to {largest:.2f})"
    return line


def _describe_step(step: StepTimes) -> str:
    least, largest = step.step_time_range
    text = f"{step.step_time:.2f} ms a step ({least:.2f} to {largest:.2f})"
    if step.compile_seconds is not None:
        text += f", compiled in {step.compile_seconds:.1f} s"
    return text if step.memory_gib is None else f"{text}, {step.memory_gib:.2f} GiB"
