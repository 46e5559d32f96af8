"""The handwritten digits that come with scikit-learn, and shifted versions of the test images.

1797 digits of 8x8 pixels by 13 writers (Alpaydin & Kaynak, 1998; the test part of the UCI set),
enlarged to 32x32 and stored as PNG, so that the input pipelines treat them as any other image.
"""

import functools
from collections.abc import Callable

import numpy as np
from scipy import ndimage

from an_jax.data.sources import ImageList
from an_jax.data.tf_on_cpu import tf
from an_jax.errors import InputError

NUM_TRAIN, NUM_TEST = 1437, 360
SIDE = 32


def _rng(images: np.ndarray) -> np.random.Generator:
    return np.random.default_rng(len(images))


def _noise(images: np.ndarray) -> np.ndarray:
    return images + _rng(images).normal(0, 60, images.shape)


def _blur(images: np.ndarray) -> np.ndarray:
    return ndimage.gaussian_filter(images, (0, 3.0, 3.0))


def _rotation(images: np.ndarray) -> np.ndarray:
    angles = _rng(images).choice([-30, 30], len(images))
    rotated = [
        ndimage.rotate(image, angle, reshape=False, order=1)
        for image, angle in zip(images, angles, strict=True)
    ]
    return np.stack(rotated)


def _contrast(images: np.ndarray) -> np.ndarray:
    mean = images.mean((1, 2), keepdims=True)
    return mean + 0.6 * (images - mean)


def _translation(images: np.ndarray) -> np.ndarray:
    return np.roll(images, (3, -3), axis=(1, 2))


# Name of a shift -> function of gray images [n, 32, 32] in [0, 255], of the same shape.
SHIFTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "noise": _noise,
    "blur": _blur,
    "rotation": _rotation,
    "contrast": _contrast,
    "translation": _translation,
}


def open_digits(split: str, shift: str | None = None) -> ImageList:
    """Returns the first 1437 digits for "train", the last 360 for "test".

    Args:
        split: "train" or "test".
        shift: key of SHIFTS; None leaves the images as they are.

    Raises:
        InputError: scikit-learn is not installed.
    """
    gray, labels = _load()
    part = slice(NUM_TRAIN) if split == "train" else slice(NUM_TRAIN, None)
    gray, labels = gray[part], labels[part]
    if shift:
        gray = SHIFTS[shift](gray)
    gray = np.clip(np.round(gray), 0, 255).astype(np.uint8)
    encoded = [tf.io.encode_png(image[..., None]).numpy() for image in gray]
    return ImageList([f"{split}/{i:04d}.png" for i in range(len(gray))], labels, encoded=encoded)


@functools.cache
def _load() -> tuple[np.ndarray, np.ndarray]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InputError("the digits need scikit-learn: pip install -e '.[demo]'") from error
    digits = load_digits()
    gray = ndimage.zoom(
        digits.images * (255 / 16), (1, SIDE / 8, SIDE / 8), order=1, grid_mode=True, mode="nearest"
    )
    return gray, digits.target.astype(np.int32)
