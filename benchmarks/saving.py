"""Measures how long a save of the training state holds up training, and how long it takes.

    JAX_NUM_CPU_DEVICES=8 python -m benchmarks.saving resnet_50_an_bn2 aognet_40m_an

Saves the state of each model several times into a local directory, from the devices at hand.
"""

import logging
import statistics
import sys
import tempfile
import time

import jax
from etils import epath

from an_jax import functional, parallel, zoo
from an_jax.training.checkpoints import TrainCheckpoints
from an_jax.training.optimizer import sgd
from an_jax.training.step import init_state

NUM_SAVES = 5


def measure(model: str) -> str:
    """Saves a model's training state; returns a row of the table."""
    split = functional.split(zoo.create_model(model))
    state = init_state(split, sgd(0.1, 0.9, 1e-4))
    state = jax.block_until_ready(parallel.replicate(state, parallel.make_mesh()))
    held, whole = [], []
    with (
        tempfile.TemporaryDirectory() as directory,
        TrainCheckpoints(epath.Path(directory), keep=2) as checkpoints,
    ):
        for step in range(NUM_SAVES):
            began = time.perf_counter()
            checkpoints.save(step, state)
            held.append(time.perf_counter() - began)
            checkpoints.wait()
            whole.append(time.perf_counter() - began)
    arrays = jax.tree.leaves(state)
    megabytes = sum(array.nbytes for array in arrays) / 1e6
    seconds = " | ".join(
        f"{statistics.median(times):.2f} ({min(times):.2f} to {max(times):.2f})"
        for times in (held, whole)
    )
    return f"| {model} | {len(arrays)} | {megabytes:.0f} | {seconds} |"


def main() -> None:
    """Prints a Markdown table."""
    logging.getLogger("absl").setLevel(logging.ERROR)  # orbax advises to save less often
    print(f"{jax.device_count()} devices")
    print("| model | arrays | MB | training waits, s | until written, s |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for model in sys.argv[1:]:
        print(measure(model), flush=True)


if __name__ == "__main__":
    main()
