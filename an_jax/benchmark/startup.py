"""How long evaluate.py takes for a single batch, without and with a compilation cache."""

import itertools
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import jax

from an_jax import functional, zoo
from an_jax.benchmark.photographs import photographs
from an_jax.checkpoint import ModelCard, save_checkpoint
from an_jax.data.sets.class_index import imagenet_wnids
from an_jax.errors import InputError

BATCH_SIZE = 16
EVALUATE = Path(__file__).parents[2] / "evaluate.py"
CACHE = ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE")


def measure_startup(name: str, folder: str | None, repeats: int, say) -> dict:
    """Runs evaluate.py on a single batch, from nothing and then with what the first run compiled.

    The first run may also be the first to read TensorFlow from disk. This process must not have
    used a device, which may serve one process only.

    Args:
        name: of the zoo.
        folder: of JPEGs; None for the photographs of scikit-learn.
        repeats: how often it is run with the cache.
        say: receives a line.

    Returns:
        {"model", "cold", "warm": seconds from the command to its end, "warm_range"}; of the warm
        runs the median, the least and the largest.

    Raises:
        InputError: there are no photographs, or evaluate.py failed; with what it said.
    """
    with tempfile.TemporaryDirectory() as directory:
        prepare(Path(directory), name, folder)
        cold, *warm = (run(Path(directory), number) for number in range(1 + repeats))
    found = {"model": name, "cold": cold, "warm": statistics.median(warm)}
    found["warm_range"] = (min(warm), max(warm))
    say(
        "{model}: a run on one batch takes {cold:.1f} s, then, compiled, {warm:.1f} s "
        "({warm_range[0]:.1f} to {warm_range[1]:.1f})".format(**found)
    )
    return found


def prepare(root: Path, name: str, folder: str | None) -> None:
    """Puts a checkpoint of random weights into root/model, and a batch of images into root/data."""
    images, scratch = root / "data/imagenet-1k/val" / imagenet_wnids()[0], root / "scratch"
    for path in (images, scratch):
        path.mkdir(parents=True)
    files = itertools.cycle(photographs(folder, scratch))
    for number, file in enumerate(itertools.islice(files, BATCH_SIZE)):
        shutil.copy(file, images / f"{number}.JPEG")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pool.submit(_save_random, root / "model", name).result()


def _save_random(path, name):
    """In a process of its own: see measure_startup."""
    jax.config.update("jax_platforms", "cpu")
    split = functional.split(zoo.create_model(name))
    card = ModelCard(name, 1000, zoo.get_architecture(name).preprocessing, {"file": "random"})
    save_checkpoint(path, card, split.params, split.batch_stats)


def run(root: Path, number: int) -> float:
    """Seconds that evaluate.py takes; writes to root/out{number}, for it would not run again over
    what it predicted before. Raises InputError if it fails."""
    command = [sys.executable, EVALUATE, "--checkpoint", root / "model"]
    command += ["--data_dir", root / "data", "--output_dir", root / f"out{number}"]
    command += ["--batch_size", BATCH_SIZE, "--allow_partial"]
    environment = {key: value for key, value in os.environ.items() if key not in CACHE}
    began = time.perf_counter()
    done = subprocess.run(
        [*map(str, command)], env=environment, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise InputError(f"evaluate.py failed: {done.stderr[-500:]}")
    return seconds
