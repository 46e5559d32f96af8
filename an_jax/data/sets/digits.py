"""The handwritten digits that ship inside scikit-learn: real images, offline, and shifts of them.

1797 digits of 8x8 pixels by 13 writers (Alpaydin & Kaynak, 1998; the test part of the UCI set),
enlarged to 32x32 and stored as PNG, so that they take the way of every other image.
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


def _rng(images):
    return np.random.default_rng(len(images))


def _noise(images):
    return images + _rng(images).normal(0, 60, images.shape)


def _blur(images):
    return ndimage.gaussian_filter(images, (0, 3.0, 3.0))


def _rotation(images):
    angles = _rng(images).choice([-30, 30], len(images))
    turned = [
        ndimage.rotate(i, a, reshape=False, order=1) for i, a in zip(images, angles, strict=True)
    ]
    return np.stack(turned)


def _contrast(images):
    mean = images.mean((1, 2), keepdims=True)
    return mean + 0.6 * (images - mean)


def _translation(images):
    return np.roll(images, (3, -3), axis=(1, 2))


# Name of a shift -> function of grey images [n, 32, 32] in [0, 255], of that shape.
SHIFTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "noise": _noise,
    "blur": _blur,
    "rotation": _rotation,
    "contrast": _contrast,
    "translation": _translation,
}


def open_digits(split: str, shift: str | None = None) -> ImageList:
    """The digits, the first 1437 for "train", the last 360 for "test".

    Raises:
        InputError: scikit-learn is not installed.
    """
    grey, labels = _load()
    part = slice(NUM_TRAIN) if split == "train" else slice(NUM_TRAIN, None)
    grey, labels = grey[part], labels[part]
    if shift:
        grey = SHIFTS[shift](grey)
    grey = np.clip(np.round(grey), 0, 255).astype(np.uint8)
    encoded = [tf.io.encode_png(image[..., None]).numpy() for image in grey]
    return ImageList([f"{split}/{i:04d}.png" for i in range(len(grey))], labels, encoded=encoded)


@functools.cache
def _load() -> tuple[np.ndarray, np.ndarray]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InputError("the digits need scikit-learn: pip install -e '.[demo]'") from error
    digits = load_digits()
    grey = ndimage.zoom(
        digits.images * (255 / 16), (1, SIDE / 8, SIDE / 8), order=1, grid_mode=True, mode="nearest"
    )
    return grey, digits.target.astype(np.int32)
