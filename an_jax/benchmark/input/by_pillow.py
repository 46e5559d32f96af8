"""The input pipelines in Pillow, as a worker of PyTorch's data loader runs them."""

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from an_jax.zoo import Preprocessing


def evaluation_batches(
    files: Sequence[Path], n: int, batch_size: int, preprocessing: Preprocessing
) -> Iterator[np.ndarray]:
    """Yields n batches, uint8 [B, S, S, 3], cycling over the files: resize, center crop."""

    def transform(image: Image.Image) -> Image.Image:
        return _center_crop(image, preprocessing)

    return _batches(files, n, batch_size, transform)


def training_batches(
    files: Sequence[Path],
    n: int,
    batch_size: int,
    preprocessing: Preprocessing,
    crop_scale: tuple[float, float],
) -> Iterator[np.ndarray]:
    """Yields n batches, uint8 [B, S, S, 3], cycling over the files: random resized crop, flip."""
    rng = random.Random(0)

    def transform(image: Image.Image) -> Image.Image:
        return _random_crop(image, rng, preprocessing, crop_scale)

    return _batches(files, n, batch_size, transform)


def _batches(
    files: Sequence[Path],
    n: int,
    batch_size: int,
    transform: Callable[[Image.Image], Image.Image],
) -> Iterator[np.ndarray]:
    images = (transform(Image.open(file).convert("RGB")) for file in itertools.cycle(files))
    for _ in range(n):
        yield np.stack([np.asarray(image) for image in itertools.islice(images, batch_size)])


def _center_crop(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    size = preprocessing.image_size
    shorter = int(size / preprocessing.crop_pct)
    width, height = (shorter * n // min(image.size) for n in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    resized = image.resize((width, height), _resampling(preprocessing))
    return resized.crop((left, top, left + size, top + size))


def _random_crop(
    image: Image.Image,
    rng: random.Random,
    preprocessing: Preprocessing,
    crop_scale: tuple[float, float],
) -> Image.Image:
    width, height = image.size
    for _ in range(10):
        area = width * height * rng.uniform(*crop_scale)
        ratio = (4 / 3) ** rng.uniform(-1, 1)
        w, h = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if w <= width and h <= height:
            left, top = rng.randint(0, width - w), rng.randint(0, height - h)
            break
    else:  # the central crop with the nearest allowed aspect ratio
        w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
        left, top = (width - w) // 2, (height - h) // 2
    size = (preprocessing.image_size, preprocessing.image_size)
    crop = image.crop((left, top, left + w, top + h)).resize(size, _resampling(preprocessing))
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else crop


def _resampling(preprocessing: Preprocessing) -> Image.Resampling:
    return Image.Resampling[preprocessing.interpolation.upper()]
