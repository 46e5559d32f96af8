"""Measures the models on this machine, or plans their training on TPUs.

    python benchmark.py --models='resnet_50_*'                        inference throughput
    python benchmark.py --mode=train --models=MODEL --against=torch   training, beside PyTorch
    python benchmark.py --mode=data                                   input pipelines
    python benchmark.py --mode=evaluate --models=MODEL                pipeline and model together
    python benchmark.py --mode=startup --models=MODEL                 evaluate.py on a single batch
    python benchmark.py --plan=v5e:4x4 --config=configs/imagenet.py:MODEL

docs/benchmarks.md has the results, docs/training.md explains the plans.
"""

import dataclasses
import fnmatch
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from absl import app, flags, logging
from etils import epath
from ml_collections import config_flags

from an_jax.errors import InputError, exit_status

MODES = ("infer", "train", "data", "evaluate", "startup")

_TIMED = {"mode", "json", "repeats", "seconds"}
_MODEL = _TIMED | {"models", "batch_size", "dtype"}
_THROUGHPUT = _MODEL | {"image_size", "against", "torch_compile", "csv", "profile"}
USED_FLAGS = {
    "--mode=infer": _THROUGHPUT,
    "--mode=train": _THROUGHPUT,
    "--mode=data": _TIMED | {"images"},
    "--mode=evaluate": _MODEL | {"images"},
    "--mode=startup": {"mode", "json", "repeats", "models", "images"},
    "--plan": {"plan", "json", "config"},
}

# How the files of --json (measurements, plans) and --csv begin.
BEGINNINGS = (
    b'{\n  "machine": {',
    b'{\n  "topology": ',
    b"model,infer_img_size,",
    b"model,train_img_size,",
)

flags.DEFINE_enum("mode", "infer", MODES, "what to measure")
flags.DEFINE_list("models", ["resnet_50_bn"], "names or patterns, such as 'resnet_50_*'")
flags.DEFINE_integer(
    "batch_size",
    None,
    "images a step (default: 256; on CPUs 16, or 4 with --mode=evaluate)",
    1,
)
flags.DEFINE_integer("image_size", None, "side of the images (default: each model's own)", 1)
flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "compute dtype")
flags.DEFINE_enum("against", None, ["torch"], "measure PyTorch too, in turns")
flags.DEFINE_bool(
    "torch_compile", False, "measure torch.compile too; the ratio is to the faster one"
)
flags.DEFINE_string("images", None, "folder of JPEGs (default: scikit-learn's photographs)")
flags.DEFINE_integer(
    "repeats",
    None,
    "number of turns; the median counts (default: 7 with --mode=infer and train, which vary most, "
    "else 3)",
    1,
)
flags.DEFINE_float(
    "seconds", 1.0, "approximate length of a turn; longer turns vary less from each other", 0.0
)
flags.DEFINE_string("json", None, "file for all figures")
flags.DEFINE_string("csv", None, "file for throughput with timm's columns")
flags.DEFINE_string("profile", None, "folder for profiles of some steps")
flags.DEFINE_string("plan", None, "TPU generation and shape, such as v5e:4x4")
config_flags.DEFINE_config_file("config", None, "configuration to plan", lock_config=True)
FLAGS = flags.FLAGS

Result = tuple[dict[str, Any], str]  # figures for the JSON file, and a line to print


def main(argv: Sequence[str]) -> int:
    """Returns the exit status."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    logging.set_verbosity(logging.WARNING)
    return exit_status(run_plan if FLAGS.plan else run)


def run() -> None:
    """Measures what --mode says; raises InputError if flags or inputs are invalid."""
    check_flags(f"--mode={FLAGS.mode}")
    if FLAGS.torch_compile and not FLAGS.against:
        raise InputError("--torch_compile needs --against=torch")
    check_destinations()
    if FLAGS.against:  # or JAX would reserve three quarters of a GPU's memory
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    measure = {
        "infer": run_throughput,
        "train": run_throughput,
        "data": run_data,
        "evaluate": run_evaluate,
        "startup": run_startup,
    }[FLAGS.mode]
    # The other modes start processes that use the devices, which may serve one process only.
    uses_devices = FLAGS.mode in ("infer", "train", "evaluate")
    if uses_devices:
        announce_devices()
    results = []
    try:
        for result, line in measure():
            print(line, flush=True)
            results.append(result)
    finally:  # keep the results so far, also after an error
        if results:
            report(results)
    if not uses_devices:
        announce_devices()


def report(results: list[dict[str, Any]]) -> None:
    """Prints the machine and writes the JSON file."""
    from an_jax.benchmark.machine import describe_machine

    machine = describe_machine(FLAGS.against == "torch")
    print("  ".join(f"{key}: {value}" for key, value in machine.items()), flush=True)
    if FLAGS.json:
        figures = {"machine": machine, "results": results}
        write(FLAGS.json, json.dumps(figures, indent=2) + "\n")


def announce_devices() -> None:
    """Prints the devices; raises InputError if this is one of several hosts and runs alone."""
    from an_jax.devices import check_devices, describe_devices

    check_devices()
    print(f"using {describe_devices()}", flush=True)


def check_destinations() -> None:
    """Raises InputError if a file of another origin would be replaced."""
    from an_jax.files import check_destination

    for path in (FLAGS.json, FLAGS.csv):
        if path:
            check_destination(path, overwrite=True, why_foreign=why_foreign)


def why_foreign(path: epath.Path) -> str | None:
    """Says why a path is not an output of this command. Returns None if it is one."""
    is_own = not path.is_dir() and path.read_bytes().startswith(BEGINNINGS)
    return None if is_own else "was not written by benchmark.py"


def check_flags(command: str) -> None:
    """Raises InputError if a flag was given that `command`, a key of USED_FLAGS, ignores."""
    for name in sorted(set().union(*USED_FLAGS.values()) - USED_FLAGS[command]):
        if not FLAGS[name].using_default_value:
            raise InputError(f"--{name} has no effect with {command}")


def run_throughput() -> Iterator[Result]:
    """Modes infer and train."""
    from an_jax.benchmark.throughput import Settings, measure_model
    from an_jax.benchmark.throughput_report import csv_text, describe
    from an_jax.files import absolute

    settings = Settings(
        mode=FLAGS.mode,
        batch_size=batch_size(),
        image_size=FLAGS.image_size,
        dtype=FLAGS.dtype,
        against_torch=FLAGS.against == "torch",
        torch_compile=FLAGS.torch_compile,
        repeats=repeats(),
        seconds=FLAGS.seconds,
        profile=FLAGS.profile and str(absolute(FLAGS.profile)),
    )
    if settings.against_torch:
        from an_jax.benchmark.pytorch import models, programs

        programs.check_device()
        for name in model_names():
            models.check_counterpart(name)
    results = []
    for name in model_names():
        result = measure_model(name, settings, warn)
        results.append(result)
        if FLAGS.csv:
            write(FLAGS.csv, csv_text(results))
        yield dataclasses.asdict(result), describe(result)


def run_data() -> Iterator[Result]:
    """The input pipelines, against Pillow."""
    from an_jax.benchmark.input.pipelines import describe, measure_pipelines

    for row in measure_pipelines(FLAGS.images, repeats(), FLAGS.seconds):
        yield row, describe(row)


def run_evaluate() -> Iterator[Result]:
    """The input pipeline, the model, and both together."""
    from an_jax.benchmark.evaluation import describe, measure_evaluation

    for name in model_names():
        figures = measure_evaluation(
            name, FLAGS.images, batch_size(), FLAGS.dtype, repeats(), FLAGS.seconds, warn
        )
        yield figures, describe(figures)


def run_startup() -> Iterator[Result]:
    """The time of evaluate.py on a single batch."""
    from an_jax.benchmark.startup import describe, measure_startup

    for name in model_names():
        figures = measure_startup(name, FLAGS.images, repeats())
        yield figures, describe(figures)


def model_names() -> list[str]:
    """Returns the models that --models selects, in the order of the patterns."""
    from an_jax import list_models, zoo

    names: dict[str, None] = {}  # in order, each once
    for pattern in FLAGS.models:
        for name in fnmatch.filter(list_models(), pattern) or [pattern]:
            zoo.get_architecture(name)  # raises InputError if unknown
            names[name] = None
    if not names:
        raise InputError("--models is empty: pass names or patterns, such as 'resnet_50_*'")
    return list(names)


def batch_size() -> int:
    """Returns --batch_size, or a default for the device."""
    if FLAGS.batch_size or jax.default_backend() != "cpu":
        return FLAGS.batch_size or 256
    return 4 if FLAGS.mode == "evaluate" else 16


def repeats() -> int:
    """Returns --repeats, or a default for the mode."""
    return FLAGS.repeats or (7 if FLAGS.mode in ("infer", "train") else 3)


def run_plan() -> None:
    """Plans training on TPUs; raises InputError if flags or the configuration are invalid."""
    check_flags("--plan")
    if FLAGS.config is None:
        raise InputError("--plan needs --config=configs/imagenet.py:MODEL")
    check_destinations()
    from an_jax.benchmark.plan import describe, make_plan
    from an_jax.benchmark.tpu_compiler import disable_tpu_search

    disable_tpu_search()
    plan = make_plan(FLAGS.config, FLAGS.plan)
    print(describe(plan))
    if FLAGS.json:
        write(FLAGS.json, json.dumps(plan.figures(), indent=2) + "\n")


def write(path: str, text: str) -> None:
    """Writes a file atomically."""
    from an_jax.files import replacing

    with replacing(path) as temporary:
        temporary.write_text(text)


def warn(line: str) -> None:
    """Prints to standard error."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    app.run(main)
