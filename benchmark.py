"""Measures the models on this machine, or plans their training on TPUs.

    python benchmark.py --models='resnet_50_*'                        inference throughput
    python benchmark.py --mode=train --models=MODEL --against=torch   training, beside PyTorch
    python benchmark.py --mode=data                                   input pipelines beside Pillow
    python benchmark.py --mode=evaluate --models=MODEL                pipeline and model together
    python benchmark.py --mode=startup --models=MODEL                 evaluate.py on a single batch
    python benchmark.py --plan=v5e:4x4 --config=configs/imagenet.py:MODEL

docs/benchmarks.md has what came of it, docs/training.md the plans.
"""

import dataclasses
import fnmatch
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from an_jax.errors import InputError, exit_status

MODES = ("infer", "train", "data", "evaluate", "startup")

_TIMED = {"mode", "json", "repeats", "seconds"}
_MODEL = _TIMED | {"models", "batch_size", "dtype"}
_THROUGHPUT = _MODEL | {"image_size", "against", "torch_compile", "csv", "profile"}
USED = {  # what is asked for -> the flags that it looks at
    "--mode=infer": _THROUGHPUT,
    "--mode=train": _THROUGHPUT,
    "--mode=data": _TIMED | {"images"},
    "--mode=evaluate": _MODEL | {"images"},
    "--mode=startup": {"mode", "json", "repeats", "models", "images"},
    "--plan": {"plan", "json", "config"},
}

flags.DEFINE_enum("mode", "infer", MODES, "what is measured")
flags.DEFINE_list("models", ["resnet_50_bn"], "names or patterns such as 'resnet_50_*'")
flags.DEFINE_integer("batch_size", None, "images a step; by default 16 on CPUs, else 256", 1)
flags.DEFINE_integer("image_size", None, "side of the images; by default each model's own", 1)
flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "compute dtype")
flags.DEFINE_enum("against", None, ["torch"], "run the same in PyTorch, by turns")
flags.DEFINE_bool("torch_compile", False, "run it by torch.compile too; the faster one counts")
flags.DEFINE_string("images", None, "folder of JPEGs to measure input with")
flags.DEFINE_integer("repeats", 7, "how often each is timed; the median counts", 1)
flags.DEFINE_float("seconds", 1.0, "about how long each time lasts", 0.0)
flags.DEFINE_string("json", None, "file to write every figure to")
flags.DEFINE_string("csv", None, "file for throughput in timm's columns")
flags.DEFINE_string("profile", None, "folder for a profile of some steps of ours")
flags.DEFINE_string("plan", None, "TPU generation and shape, such as v5e:4x4")
config_flags.DEFINE_config_file("config", None, "configuration to plan", lock_config=True)
FLAGS = flags.FLAGS


def main(argv) -> int:
    """Returns the exit status."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    logging.set_verbosity(logging.WARNING)
    return exit_status(run_plan if FLAGS.plan else run)


def run() -> None:
    """Raises InputError where the user must mend something."""
    check_flags(f"--mode={FLAGS.mode}")
    if FLAGS.torch_compile and not FLAGS.against:
        raise InputError("--torch_compile needs --against=torch")
    if FLAGS.against:  # or JAX would take three quarters of a GPU before PyTorch gets any
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    measured = {
        "infer": run_throughput,
        "train": run_throughput,
        "data": run_data,
        "evaluate": run_evaluate,
        "startup": run_startup,
    }[FLAGS.mode]()
    results = []
    try:
        results.extend(measured)  # keeps those before an error
    finally:
        if results:
            report(results)


def report(results: list[dict]) -> None:
    """Prints the machine, and writes the JSON."""
    from an_jax.benchmark.machine import describe_machine

    # Last, since it takes the device, which may be one that only one process can have.
    machine = describe_machine(FLAGS.against == "torch")
    print("  ".join(f"{key}: {value}" for key, value in machine.items()), flush=True)
    if FLAGS.json:
        found = {"machine": machine, "results": results}
        write(FLAGS.json, json.dumps(found, indent=2) + "\n")


def check_flags(asked: str) -> None:
    """Raises InputError where a flag was given that `asked`, a key of USED, does not look at."""
    for name in sorted(set().union(*USED.values()) - USED[asked]):
        if not FLAGS[name].using_default_value:
            raise InputError(f"--{name} has no effect with {asked}")


def run_throughput() -> Iterator[dict]:
    """Modes infer and train."""
    from an_jax.benchmark.throughput import Settings, measure_model
    from an_jax.benchmark.throughput_report import csv_text, describe

    settings = Settings(
        mode=FLAGS.mode,
        batch_size=batch_size(),
        image_size=FLAGS.image_size,
        dtype=FLAGS.dtype,
        against_torch=FLAGS.against == "torch",
        torch_compile=FLAGS.torch_compile,
        repeats=FLAGS.repeats,
        seconds=FLAGS.seconds,
        profile=FLAGS.profile,
    )
    if settings.against_torch:
        from an_jax.benchmark import torch_models, torch_programs

        torch_programs.check_device()
        for name in names():
            torch_models.check_twin(name)
    results = []
    for name in names():
        results.append(measure_model(name, settings, say))
        print(describe(results[-1]), flush=True)
        if FLAGS.csv:
            write(FLAGS.csv, csv_text(results))
        yield dataclasses.asdict(results[-1])


def run_data() -> list[dict]:
    """The two input pipelines beside Pillow."""
    from an_jax.benchmark.pipelines import measure_pipelines

    return measure_pipelines(FLAGS.images, FLAGS.repeats, FLAGS.seconds, print)


def run_evaluate() -> Iterator[dict]:
    """Pipeline alone, model alone, and both together."""
    from an_jax.benchmark.evaluation import measure_evaluation

    for name in names():
        yield measure_evaluation(
            name, FLAGS.images, batch_size(), FLAGS.dtype, FLAGS.repeats, FLAGS.seconds, print
        )


def run_startup() -> Iterator[dict]:
    """How long evaluate.py takes for a single batch."""
    from an_jax.benchmark.startup import measure_startup

    for name in names():
        yield measure_startup(name, FLAGS.images, FLAGS.repeats, print)


def names() -> list[str]:
    """The models that were asked for, in the order of the patterns."""
    from an_jax import list_models, zoo

    found = {}
    for pattern in FLAGS.models:
        matching = fnmatch.filter(list_models(), pattern) or [pattern]
        found.update((name, zoo.get_architecture(name)) for name in matching)
    if not found:
        raise InputError("--models names none")
    return list(found)


def batch_size() -> int:
    """As given, or what suits the device."""
    return FLAGS.batch_size or (16 if jax.default_backend() == "cpu" else 256)


def run_plan() -> None:
    """Raises InputError where the user must mend something."""
    check_flags("--plan")
    if FLAGS.config is None:
        raise InputError("--plan needs --config=configs/imagenet.py:MODEL")
    from an_jax.benchmark.plan import describe, make_plan
    from an_jax.benchmark.tpu_compiler import look_for_no_tpu

    look_for_no_tpu()
    plan = make_plan(FLAGS.config, FLAGS.plan)
    print(describe(plan))
    if FLAGS.json:
        write(FLAGS.json, json.dumps(dataclasses.asdict(plan), indent=2) + "\n")


def write(path: str, text: str) -> None:
    """Writes a file, whole or not at all."""
    from an_jax.files import replacing

    with replacing(path) as temporary:
        Path(temporary).write_text(text)


def say(line: str) -> None:
    """What is not as asked for."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    app.run(main)
