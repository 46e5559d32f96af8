"""Bytes that models move, by the TPU compiler's own count; needs no TPU.

    pip install libtpu==0.0.42      # Linux on x86-64; into an environment of its own
    python -m benchmarks.tpu_bytes resnet_50_bn resnet_50_an_bn2 --json bytes.json

compiles the whole training step and the evaluation of each model for one chip of a TPU v5e, in
bfloat16, and prints gigabytes moved per image. A model takes five to forty minutes and, if it is an
AOGNet, 18 GB of memory. Without libtpu it says so and ends with an error.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from an_jax.benchmark import tpu_compiler
from an_jax.benchmark.chips import GIB
from an_jax.errors import InputError
from an_jax.training.config import default_config

TOPOLOGY = "v5e:2x2"  # the smallest there is; of it, one chip is compiled for
PROGRAMS = {"train": tpu_compiler.lower_step, "eval": tpu_compiler.lower_evaluation}


def measure(model: str, program: str, batch: int) -> dict:
    """What one program of a model moves on one chip.

    Args:
        model: a name of the zoo.
        program: "train" or "eval".
        batch: images on the chip.

    Raises:
        InputError: unknown model, or libtpu is not installed.
    """
    config = default_config()
    config.model = model
    config.batch_size = config.eval_batch_size = batch
    lowered = PROGRAMS[program](config, tpu_compiler.tpu_devices(TOPOLOGY)[:1])
    began = time.perf_counter()
    compiled = lowered.compile()
    return {
        "model": model,
        "program": program,
        "batch": batch,
        "gb_per_image": compiled.cost_analysis()["bytes accessed"] / batch / 1e9,
        "temporary_gib": compiled.memory_analysis().temp_size_in_bytes / GIB,
        "compile_seconds": time.perf_counter() - began,
    }


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description="GB a model moves per image on a TPU v5e")
    parser.add_argument("models", nargs="+", help="names of the zoo")
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    parser.add_argument("--batch", type=int, default=256, help="images on the chip")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    args = parser.parse_args()
    tpu_compiler.look_for_no_tpu()
    rows = []
    print("| model | program | GB an image | temporaries, GiB | compiled in |", flush=True)
    print("| --- | --- | ---: | ---: | ---: |", flush=True)
    for program in args.programs:
        for model in args.models:
            try:
                row = measure(model, program, args.batch)
            except InputError as error:
                print(error, file=sys.stderr)
                return 1
            rows.append(row)
            print(
                f"| {model} | {program} | {row['gb_per_image']:.4f} | {row['temporary_gib']:.2f} "
                f"| {row['compile_seconds']:.0f} s |",
                flush=True,
            )
            if args.json:
                args.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
