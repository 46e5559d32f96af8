"""Measures training batches of images prepared by tfds, beside the same images in class folders.

    taskset -c 0 python -m benchmarks.tfds_records

Prints the throughput of one core with each. Needs the extra `test`.
"""

import functools
import itertools
import tempfile
from pathlib import Path

import tensorflow_datasets as tfds

from an_jax.benchmark.input.photographs import SIZE, write_photographs
from an_jax.benchmark.input.pipelines import BATCH_SIZE, exhaust, image_list, training_epoch
from an_jax.benchmark.timing import measure_started, rates, ratio
from an_jax.data.prepared import open_tfds
from an_jax.data.sources import ImageList, TfdsSplit
from tests.fake_tfds import prepare

NUM_FILES = 16  # of a data set; ImageNet has 1024


def make_sources(directory: Path, n: int) -> tuple[ImageList, TfdsSplit]:
    """Writes n photographs as files, and prepares them with ImageNet's name and features."""
    photographs = [file.read_bytes() for file in write_photographs(directory, SIZE)]
    folder, prepared = directory / f"{n}_files", directory / f"{n}_prepared"
    folder.mkdir()
    files = [folder / f"{i}.JPEG" for i in range(n)]
    for file, photograph in zip(files, itertools.cycle(photographs), strict=False):
        file.write_bytes(photograph)
    features = {
        "image": tfds.features.Image(encoding_format="jpeg"),
        "label": tfds.features.ClassLabel(num_classes=1000),
        "file_name": tfds.features.Text(),
    }
    examples = [{"image": str(file), "label": 0, "file_name": file.name} for file in files]
    prepare(prepared, "imagenet2012", "5.1.0", "train", features, examples, num_shards=NUM_FILES)
    split = open_tfds("imagenet2012", "train", str(prepared))
    assert split is not None
    return image_list(files, n), split


def main() -> None:
    """Prints a Markdown table."""
    with tempfile.TemporaryDirectory() as scratch:
        sources = functools.cache(functools.partial(make_sources, Path(scratch)))
        runs = {
            "class folders": lambda n: exhaust(training_epoch(sources(n * BATCH_SIZE)[0])),
            "tfds": lambda n: exhaust(training_epoch(sources(n * BATCH_SIZE)[1])),
        }
        times = measure_started(runs, repeats=5, seconds=1.0)
    print("| images from | img/s | over class folders |")
    print("| --- | ---: | ---: |")
    for name, turns in times.items():
        figures = rates("rate", turns, BATCH_SIZE) | ratio("ratio", turns, times["class folders"])
        line = "| {name} | {rate:.0f} ({rate_range[0]:.0f} to {rate_range[1]:.0f}) | "
        line += "{ratio:.2f} ({ratio_range[0]:.2f} to {ratio_range[1]:.2f}) |"
        print(line.format(name=name, **figures))


if __name__ == "__main__":
    main()
