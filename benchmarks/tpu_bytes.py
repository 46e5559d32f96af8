"""Counts the bytes that models move on a TPU, with the TPU compiler; needs no TPU.

    pip install libtpu==0.0.42      # Linux on x86-64; in a separate environment
    python -m benchmarks.tpu_bytes resnet_50_bn resnet_50_an_bn2 linen_resnet_50 --json bytes.json

Compiles the training step and the evaluation of each model for chips of a TPU v5e in bfloat16, and
prints the gigabytes moved per image: to and from HBM, the chip's main memory, and to and from HBM
and VMEM, the on-chip memory, together (XLA's "bytes accessed"); and the floor without on-chip
memory (benchmarks/floor.py). The models of benchmarks/peers.py can be named too. A model takes five
to thirty minutes; an AOGNet needs 18 GB of memory.
"""

import argparse
import json
import sys
import time
from typing import Any

from etils import epath

from an_jax.benchmark import tpu_compiler
from an_jax.benchmark.chips import GIB
from an_jax.benchmark.collectives import Exchange, count_collectives
from an_jax.benchmark.hbm_traffic import hbm_bytes
from an_jax.errors import exit_status
from an_jax.files import absolute, check_destination, write_atomically
from an_jax.training.config import default_config
from benchmarks import floor, peers

TOPOLOGY = "v5e:2x2"
PROGRAMS = {"train": "lower_step", "eval": "lower_evaluation"}  # functions of both modules


def measure(model: str, program: str, batch: int, num_chips: int) -> dict[str, Any]:
    """Compiles one program of a model, and counts what it moves on one chip.

    Args:
        model: name of the zoo, or one of peers.PEERS.
        program: "train" or "eval".
        batch: images on a chip, over which a training step takes statistics.
        num_chips: 1 or 4.

    Raises:
        InputError: unknown model, or libtpu is not installed.
    """
    config = default_config()
    config.model = model
    config.batch_size = config.eval_batch_size = batch * num_chips
    config.norm_batch_size = batch
    is_peer = model in peers.PEERS
    lower = getattr(peers if is_peer else tpu_compiler, PROGRAMS[program])
    lowered = lower(config, tpu_compiler.tpu_devices(TOPOLOGY)[:num_chips])
    began = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - began
    cost, memory, hlo = compiled.cost_analysis(), compiled.memory_analysis(), compiled.as_text()
    assert cost, "the TPU compiler reports all three"
    assert memory
    assert hlo
    return {
        "model": model,
        "program": program,
        "batch": batch,
        "gb_per_image": hbm_bytes(hlo) / batch / 1e9,
        "gb_accessed_per_image": cost["bytes accessed"] / batch / 1e9,
        "floor_gb_per_image": None if is_peer else floor.least_gb(model, program, [batch])[0],
        "tflop": cost["flops"] / 1e12,
        "temporary_gib": memory.temp_size_in_bytes / GIB,
        "all_reduces": count_collectives(hlo).get("all-reduce", Exchange()).count,
        "compile_seconds": seconds,
    }


def main() -> int:
    """Runs the command and returns its exit status."""
    parser = argparse.ArgumentParser(description="GB a model moves per image on a TPU v5e")
    parser.add_argument("models", nargs="+", help="names of models")
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    parser.add_argument("--batch", type=int, default=256, help="images on a chip")
    parser.add_argument("--num_chips", type=int, choices=(1, 4), default=1)
    parser.add_argument("--json", help="file for the figures")
    args = parser.parse_args()
    return exit_status(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """Prints a row for each program and model, and writes all of them to the JSON file.

    Raises:
        InputError: unknown model, libtpu is not installed, or the JSON file is of another origin.
    """
    if args.json:
        check_destination(args.json, overwrite=True, why_foreign=why_foreign)
    tpu_compiler.disable_tpu_search()
    rows = []
    print(
        "| model | program | GB an image | floor | with VMEM | TFLOP | temporaries, GiB "
        "| all-reduces | compiled in |\n| --- | --- |" + 7 * " ---: |",
        flush=True,
    )
    for program in args.programs:
        for model in args.models:
            row = measure(model, program, args.batch, args.num_chips)
            rows.append(row)
            least = row["floor_gb_per_image"]
            print(
                f"| {model} | {program} | {row['gb_per_image']:.4f} "
                f"| {f'{least:.4f}' if least else ''} "
                f"| {row['gb_accessed_per_image']:.4f} | {row['tflop']:.3f} "
                f"| {row['temporary_gib']:.2f} | {row['all_reduces']} "
                f"| {row['compile_seconds']:.0f} s |",
                flush=True,
            )
            if args.json:
                write_atomically(absolute(args.json), json.dumps(rows, indent=2) + "\n")


def why_foreign(path: epath.Path) -> str | None:
    """Says why a path is not an output of this command. Returns None if it is one."""
    is_own = not path.is_dir() and path.read_bytes().startswith(b'[\n  {\n    "model": ')
    return None if is_own else "was not written by this command"


if __name__ == "__main__":
    sys.exit(main())
