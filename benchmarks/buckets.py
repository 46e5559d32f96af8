"""Measures training whose working directory is in a bucket, for several latencies of its replies.

    python -m benchmarks.buckets

Trains the small ResNet on the digits, first with a local directory and then with buckets of a GCS
server on this machine, and prints a table. Needs the extra `test`.
"""

import os
import tempfile
import time
from pathlib import Path

import numpy as np
from etils import epath

from an_jax.data.tf_on_cpu import tf
from an_jax.training.log import RunLog
from an_jax.training.log_files import read_lines
from an_jax.training.loop import train
from configs import digits
from tests import fake_gcs

LATENCIES = (0.0, 0.05, 0.3)  # seconds


def measure(parent: epath.Path) -> tuple[float, float, float]:
    """Trains, and writes a log. Returns img/s, seconds between epochs, milliseconds a log line.

    The time between epochs is the median of those from the last line about a step to the first of
    the next epoch, which is that of its third step.
    """
    config = digits.get_config("bn")
    config.update({"image_size": 8, "batch_size": 48, "num_epochs": 4, "log_steps": 1})
    train(config, parent / "run")
    rates = [line["images_per_second"] for line in read_lines(parent / "run" / "metrics.jsonl")]
    times = step_times(parent / "run" / "tensorboard")
    per_epoch = len(times) // config.num_epochs
    gaps = [times[i] - times[i - 1] for i in range(per_epoch + 1, len(times), per_epoch)]
    with RunLog(parent / "log", 0, is_writer=True) as log:
        began = time.perf_counter()
        for step in range(1, 101):
            log.add_steps({"epoch": 1, "step": step, "loss": 1.0})
        seconds = time.perf_counter() - began
    return float(np.median(rates[1:])), float(np.median(gaps)), 10 * seconds


def step_times(directory: epath.Path) -> dict[int, float]:
    """Returns the time at which each step was logged."""
    times = {}
    for path in directory.glob("events*"):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            if any(value.tag == "train/loss" for value in event.summary.value):
                times[event.step] = event.wall_time
    return times


def main() -> None:
    """Prints a Markdown table, again after each latency."""
    with tempfile.TemporaryDirectory() as directory:
        measure(epath.Path(directory) / "warm-up")  # compiles
        table = ["working directory | requests | img/s | s between epochs | ms a log line"]
        table += ["--- | ---: | ---: | ---: | ---:"]
        table += [format_row("local", 0, *measure(epath.Path(directory) / "local"))]
        (Path(directory) / "server").mkdir()
        with fake_gcs.serve(Path(directory) / "server") as (port, environment):
            os.environ.update(environment)
            for latency in LATENCIES:
                bucket = fake_gcs.Bucket(port)
                bucket.heal()
                bucket.delay(latency)
                measured = measure(bucket.path)
                name = f"bucket, {1000 * latency:.0f} ms"
                table += [format_row(name, len(bucket.requests()), *measured)]
                print("\n".join(f"| {row} |" for row in table), flush=True)


def format_row(name: str, requests: int, rate: float, gap: float, line: float) -> str:
    """Returns the cells of a row."""
    return f"{name} | {requests} | {rate:.0f} | {gap:.2f} | {line:.2f}"


if __name__ == "__main__":
    main()
