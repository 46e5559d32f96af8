"""What the input pipelines do, by Pillow, as an input worker of PyTorch would do it."""

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from an_jax.zoo import Preprocessing


def evaluation_batches(
    files: list[Path], n: int, batch_size: int, preprocessing: Preprocessing
) -> Iterator[np.ndarray]:
    """n batches, uint8 [B, S, S, 3], of the files over and over: resized and cropped."""
    return _batches(files, n, batch_size, lambda image: _center_crop(image, preprocessing))


def training_batches(
    files: list[Path],
    n: int,
    batch_size: int,
    preprocessing: Preprocessing,
    crop_scale: tuple[float, float],
) -> Iterator[np.ndarray]:
    """n batches, uint8 [B, S, S, 3], of the files over and over: cropped, resized and flipped."""
    rng = random.Random(0)
    return _batches(
        files, n, batch_size, lambda image: _random_crop(image, rng, preprocessing, crop_scale)
    )


def _batches(files, n, batch_size, transform):
    images = itertools.cycle(files)
    for _ in range(n):
        opened = (Image.open(file).convert("RGB") for file in itertools.islice(images, batch_size))
        yield np.stack([np.asarray(transform(image)) for image in opened])


def _center_crop(image, preprocessing):
    size = preprocessing.image_size
    shorter = int(size / preprocessing.crop_pct)
    width, height = (shorter * n // min(image.size) for n in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    resized = image.resize((width, height), _filter(preprocessing))
    return resized.crop((left, top, left + size, top + size))


def _random_crop(image, rng, preprocessing, crop_scale):
    width, height = image.size
    for _ in range(10):
        area = width * height * rng.uniform(*crop_scale)
        ratio = (4 / 3) ** rng.uniform(-1, 1)
        w, h = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if w <= width and h <= height:
            left, top = rng.randint(0, width - w), rng.randint(0, height - h)
            break
    else:  # the middle, at the nearest ratio that is allowed
        w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
        left, top = (width - w) // 2, (height - h) // 2
    size = (preprocessing.image_size,) * 2
    image = image.crop((left, top, left + w, top + h)).resize(size, _filter(preprocessing))
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else image


def _filter(preprocessing):
    return Image.Resampling[preprocessing.interpolation.upper()]
