"""Time that evaluate.py takes for a single batch, without and with a compilation cache."""

import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from an_jax import functional, zoo
from an_jax.benchmark.input.photographs import find_photographs
from an_jax.benchmark.processes import run_in_process
from an_jax.checkpoint import ModelCard, save_checkpoint
from an_jax.data.sets.class_index import imagenet_wnids
from an_jax.errors import InputError

BATCH_SIZE = 16
EVALUATE = Path(__file__).parents[2] / "evaluate.py"
CACHE = ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE")


def measure_startup(name: str, folder: str | None, repeats: int) -> dict[str, Any]:
    """Runs evaluate.py on a single batch, first without compiled programs, then with them.

    A last run tells the parts apart.

    The first run may also be the first to read TensorFlow from disk. The calling process must not
    have used a device, because some devices serve one process only.

    Args:
        name: model of the zoo.
        folder: JPEGs; None for scikit-learn's photographs.
        repeats: number of runs with compiled programs.

    Returns:
        {"model", "cold", "warm", "warm_range", "parts"}: seconds from start to exit of the first
        run, the median of the later runs, their least and largest, and {part: seconds}.

    Raises:
        InputError: there are no photographs, or evaluate.py failed.
    """
    with tempfile.TemporaryDirectory() as directory:
        prepare(Path(directory), name, folder)
        cold, *warm = (run(Path(directory), number) for number in range(1 + repeats))
        parts = measure_parts(Path(directory))
    figures = {"warm": statistics.median(warm), "warm_range": (min(warm), max(warm))}
    return {"model": name, "cold": cold, **figures, "parts": parts}


def describe(figures: Mapping[str, Any]) -> str:
    """Returns a line that summarizes the figures of one model, and one for each part."""
    summary = (
        "{model}: a run on one batch takes {cold:.1f} s, then, compiled, {warm:.1f} s "
        "({warm_range[0]:.1f} to {warm_range[1]:.1f})"
    ).format(**figures)
    parts = (f"  {part}: {seconds:.2f} s" for part, seconds in figures["parts"].items())
    return "\n".join((summary, *parts))


def prepare(root: Path, name: str, folder: str | None) -> None:
    """Writes a checkpoint of random weights to root/model and a batch of images to root/data."""
    images, scratch = root / "data/imagenet-1k/val" / imagenet_wnids()[0], root / "scratch"
    for path in (images, scratch):
        path.mkdir(parents=True)
    files = itertools.cycle(find_photographs(folder, scratch))
    for number, file in enumerate(itertools.islice(files, BATCH_SIZE)):
        shutil.copy(file, images / f"{number}.JPEG")
    # In a new process, because this one must not use a device.
    run_in_process(save_random, root / "model", name)


def save_random(path: Path, name: str) -> None:
    """Writes a checkpoint of random weights."""
    jax.config.update("jax_platforms", "cpu")
    split = functional.split(zoo.create_model(name))
    card = ModelCard(name, 1000, zoo.get_architecture(name).preprocessing, {"file": "random"})
    save_checkpoint(path, card, split.params, split.batch_stats)


def measure_parts(root: Path) -> dict[str, float]:
    """Runs evaluate.py once more; returns the seconds of its parts."""
    file = root / "parts.json"
    total = run(root, "parts", ("-m", "an_jax.benchmark.startup_parts", str(file)))
    parts = json.loads(file.read_text())
    return parts | {"the rest, with the batch's predictions": total - sum(parts.values())}


def run(root: Path, number: int | str, runner: Sequence[str] = ()) -> float:
    """Runs evaluate.py; returns the seconds it took.

    Each run has an output directory of its own, root/out{number}, because evaluate.py would reuse
    predictions of an earlier run.

    Args:
        root: directory of the checkpoint, the data and the outputs.
        number: of the run, or another name for its output directory.
        runner: arguments of Python ahead of the script.

    Raises:
        InputError: evaluate.py failed; the message ends with what it printed.
    """
    command: list[object] = [sys.executable, *runner, EVALUATE, "--checkpoint", root / "model"]
    command += ["--data_dir", root / "data", "--output_dir", root / f"out{number}"]
    command += ["--batch_size", BATCH_SIZE, "--allow_partial"]
    environment = {key: value for key, value in os.environ.items() if key not in CACHE}
    began = time.perf_counter()
    done = subprocess.run(
        [str(part) for part in command],
        env=environment,
        cwd=EVALUATE.parent,  # where `python -m` finds this package
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise InputError(f"evaluate.py failed: {done.stderr[-500:]}")
    return seconds
