"""Input pipelines: beside Pillow on one core, on more cores, and with a model behind them."""

import functools
import itertools
import multiprocessing
import os
import random
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from PIL import Image

from an_jax import functional, parallel, zoo
from an_jax.benchmark.photographs import photographs
from an_jax.benchmark.timing import measure
from an_jax.zoo import Preprocessing

PREPROCESSING = Preprocessing(224, 0.875, "bilinear")
CROP_SCALE = (0.08, 1.0)
BATCH_SIZE = 32
MANY = 2**17  # images: more than any measurement sees


def measure_pipelines(folder: str | None, repeats: int, seconds: float, say) -> list[dict]:
    """Images a second of both pipelines, from files, on one core beside Pillow, then on more.

    Args:
        folder: of JPEGs; None for the photographs of scikit-learn.
        repeats, seconds: see timing.measure.
        say: receives a line for each result.

    Returns:
        Rows of {"pipeline", "cores", "samples_per_sec"}, on one core with "pillow_samples_per_sec"
        and "ratio", ours over Pillow's.

    Raises:
        InputError: there are no photographs.
    """
    cores = sorted(os.sched_getaffinity(0))
    counts = sorted({*(2**i for i in range(len(cores).bit_length())), len(cores)})
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        files = photographs(folder, Path(scratch))
        for count in counts:
            # In a process of its own, for TensorFlow makes its threads once.
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(
                1, context, initializer=os.sched_setaffinity, initargs=(0, cores[:count])
            ) as pool:
                rates = pool.submit(_rates, files, count == 1, repeats, seconds).result()
            for pipeline in ("evaluation", "training"):
                row = {"pipeline": pipeline, "cores": count, "samples_per_sec": rates[pipeline]}
                line = f"{pipeline} on {count} cores: {rates[pipeline]:.0f} img/s"
                if count == 1:
                    pillow = rates[f"{pipeline}, Pillow"]
                    row |= {"pillow_samples_per_sec": pillow, "ratio": rates[pipeline] / pillow}
                    line += f"; Pillow {pillow:.0f}; ratio {row['ratio']:.2f}"
                say(line)
                rows.append(row)
    return rows


def _rates(files, with_pillow, repeats, seconds) -> dict[str, float]:
    """Images a second of each program, on the cores of this process."""
    pipelines = {"evaluation": evaluation_batches(files), "training": _training_batches(files)}
    if with_pillow:
        pipelines["evaluation, Pillow"] = _by_pillow(files, _center_crop)
        pipelines["training, Pillow"] = _by_pillow(files, _random_crop)
    runs = {name: functools.partial(_take, batches) for name, batches in pipelines.items()}
    times = measure(runs, repeats=repeats, seconds=seconds)
    return {name: BATCH_SIZE / t.median for name, t in times.items()}


def _take(batches: Iterator, n: int) -> None:
    for _ in itertools.islice(batches, n):
        pass


def image_list(files: list[Path], n: int):
    """n images: the files over and over."""
    from an_jax.data.sources import ImageList

    root = os.path.commonpath([file.parent for file in files])
    names = [file.relative_to(root).as_posix() for file in files]
    return ImageList(list(itertools.islice(itertools.cycle(names), n)), np.zeros(n, np.int32), root)


def evaluation_batches(
    files: list[Path], batch_size: int = BATCH_SIZE, preprocessing: Preprocessing = PREPROCESSING
) -> Iterator:
    """The files over and over, as evaluation gets them."""
    from an_jax.data.eval_pipeline import eval_batches

    source = image_list(files, MANY)
    return eval_batches(source, range(MANY), batch_size, preprocessing)


def _training_batches(files) -> Iterator:
    from an_jax.data.train_pipeline import Augmentation, train_batches

    return train_batches(
        image_list(files, MANY),
        BATCH_SIZE,
        slice(0, BATCH_SIZE),
        PREPROCESSING,
        Augmentation(CROP_SCALE, horizontal_flip=True),
        seed=0,
        epoch=0,
        first_step=0,
    )


def _by_pillow(files, transform) -> Iterator[np.ndarray]:
    """The same by Pillow, as an input worker of PyTorch would do it."""
    rng, images = random.Random(0), itertools.cycle(files)
    while True:
        opened = (Image.open(file).convert("RGB") for file in itertools.islice(images, BATCH_SIZE))
        yield np.stack([np.asarray(transform(image, rng)) for image in opened])


def _center_crop(image, rng):
    size = PREPROCESSING.image_size
    shorter = int(size / PREPROCESSING.crop_pct)
    width, height = (shorter * n // min(image.size) for n in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return resized.crop((left, top, left + size, top + size))


def _random_crop(image, rng):
    width, height = image.size
    for _ in range(10):
        area = width * height * rng.uniform(*CROP_SCALE)
        ratio = (4 / 3) ** rng.uniform(-1, 1)
        w, h = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if w <= width and h <= height:
            break
    else:
        w = h = min(width, height)
    left, top = rng.randint(0, width - w), rng.randint(0, height - h)
    size = (PREPROCESSING.image_size,) * 2
    image = image.crop((left, top, left + w, top + h)).resize(size, Image.Resampling.BILINEAR)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else image


def measure_evaluation(
    name: str, folder: str | None, batch_size: int, dtype: str, repeats: int, seconds: float, say
) -> dict:
    """Images a second of the evaluation's pipeline, of the model, and of both as evaluate.py runs
    them, by turns.

    Args:
        name: of the zoo.
        folder: of JPEGs; None for the photographs of scikit-learn.
        batch_size: images a step.
        dtype: compute dtype.
        repeats, seconds: see timing.measure.
        say: receives a line.

    Returns:
        {"model", "pipeline", "inference", "evaluation": images a second, "share": of evaluation
        in the slower of the two, "bound": the same if both share the cores without loss}.
    """
    from an_jax.benchmark import programs
    from an_jax.evaluation.evaluator import Evaluator

    mesh = parallel.make_mesh()
    preprocessing = zoo.get_architecture(name).preprocessing
    split = functional.split(zoo.create_model(name, dtype=jnp.dtype(dtype)))
    evaluate = Evaluator(split.definition, 1000, preprocessing, batch_size, mesh)
    arrays = parallel.replicate((split.params, split.batch_stats), mesh)

    model = programs.inference(name, batch_size, preprocessing.image_size, dtype)
    with tempfile.TemporaryDirectory() as scratch:
        files = photographs(folder, Path(scratch))

        def evaluation(n):
            evaluate(*arrays, image_list(files, n * batch_size), title=name, nested=True)

        runs = {
            "pipeline": functools.partial(
                _take, evaluation_batches(files, batch_size, preprocessing)
            ),
            "inference": model.run,
            "evaluation": evaluation,
        }
        times = measure(runs, repeats=repeats, seconds=seconds)
    rates = {key: batch_size / t.median for key, t in times.items()}
    slower = min(rates["pipeline"], rates["inference"])
    together = 1 / (1 / rates["pipeline"] + 1 / rates["inference"])
    found = {"share": rates["evaluation"] / slower, "bound": together / slower}
    say(
        f"{name}: " + ", ".join(f"{key} {rate:.1f} img/s" for key, rate in rates.items()) + "; "
        f"{found['share']:.3f} of the slower one (one core for both: {found['bound']:.3f})"
    )
    return {"model": name, **rates, **found}
