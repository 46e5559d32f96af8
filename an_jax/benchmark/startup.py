"""Time from the command to the first evaluated batch, without and with a compilation cache."""

import itertools
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from an_jax import functional, zoo
from an_jax.benchmark.photographs import photographs
from an_jax.checkpoint import ModelCard, save_checkpoint
from an_jax.data.class_index import imagenet_wnids
from an_jax.errors import InputError

BATCH_SIZE = 16
EVALUATE = Path(__file__).parents[2] / "evaluate.py"


def measure_startup(name: str, repeats: int, say) -> dict:
    """Runs evaluate.py on a single batch, from nothing and then with what the first run compiled.

    Args:
        name: of the zoo.
        repeats: how often it is run with the cache.
        say: receives a line.

    Returns:
        {"model", "cold", "warm": seconds from the command to its end; of warm, the least}.

    Raises:
        InputError: evaluate.py failed; with what it said.
    """
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        split = functional.split(zoo.create_model(name))
        preprocessing = zoo.get_architecture(name).preprocessing
        card = ModelCard(name, 1000, preprocessing, {"file": "random weights"})
        save_checkpoint(root / name, card, split.params, split.batch_stats)
        images, scratch = root / "data/imagenet-1k/val" / imagenet_wnids()[0], root / "scratch"
        for folder in (images, scratch):
            folder.mkdir(parents=True)
        files = itertools.cycle(photographs(None, scratch))
        for number, file in enumerate(itertools.islice(files, BATCH_SIZE)):
            shutil.copy(file, images / f"{number}.JPEG")
        seconds = [_evaluate(root, name, number) for number in range(1 + repeats)]
    found = {"model": name, "cold": seconds[0], "warm": min(seconds[1:])}
    say(f"{name}: first batch after {found['cold']:.1f} s, then {found['warm']:.1f} s")
    return found


def _evaluate(root, name, number) -> float:
    """Seconds; each time into another output directory, or its predictions would be kept."""
    command = [sys.executable, EVALUATE, "--checkpoint", root / name, "--data_dir", root / "data"]
    command += ["--output_dir", root / f"out{number}", "--batch_size", BATCH_SIZE]
    began = time.perf_counter()
    done = subprocess.run(
        [*map(str, command), "--allow_partial"], capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise InputError(f"evaluate.py failed: {done.stderr[-500:]}")
    return seconds
