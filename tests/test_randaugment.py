"""RandAugment's operations equal Pillow's, bit for bit; random erasing."""

import collections
import functools
import itertools

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from an_jax.data.images import augmentation, randaugment
from an_jax.data.images.randaugment import GRAY, OPERATIONS
from an_jax.data.tf_on_cpu import tf
from tests.pictures import noise, smooth


def affine(image, *matrix):
    fill = (GRAY,) * 3
    return image.transform(image.size, Image.Transform.AFFINE, matrix, fillcolor=fill)


def shift(length, s):
    return round(s * length * 150 / 331)


# Each operation of Pillow for a strength s.
PILLOW = {
    "identity": lambda image, s: image,
    "autocontrast": lambda image, s: ImageOps.autocontrast(image),
    "equalize": lambda image, s: ImageOps.equalize(image),
    "rotate": lambda image, s: image.rotate(30 * s, fillcolor=(GRAY,) * 3),
    "solarize": lambda image, s: ImageOps.solarize(image, 256 * (1 - abs(s))),
    "color": lambda image, s: ImageEnhance.Color(image).enhance(1 + 0.9 * s),
    "posterize": lambda image, s: ImageOps.posterize(image, 8 - round(4 * abs(s))),
    "contrast": lambda image, s: ImageEnhance.Contrast(image).enhance(1 + 0.9 * s),
    "brightness": lambda image, s: ImageEnhance.Brightness(image).enhance(1 + 0.9 * s),
    "sharpness": lambda image, s: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * s),
    "shear_x": lambda image, s: affine(image, 1, 0.3 * s, 0, 0, 1, 0),
    "shear_y": lambda image, s: affine(image, 1, 0, 0, 0.3 * s, 1, 0),
    "translate_x": lambda image, s: affine(image, 1, 0, shift(image.width, s), 0, 1, 0),
    "translate_y": lambda image, s: affine(image, 1, 0, 0, 0, 1, shift(image.height, s)),
}
IMAGES = {
    "noise": noise(30, 41),
    "smooth": smooth(64, 64) // 2 + 30,
    "dark": noise(20, 20, 1) // 64 * np.uint8([1, 2, 3]),
    "flat": np.full((17, 16, 3), 77, np.uint8),
}


def test_all_operations_of_the_paper():
    assert OPERATIONS.keys() == PILLOW.keys()
    assert len(OPERATIONS) == 14


@pytest.mark.parametrize("name", PILLOW)
def test_an_operation_is_pillows(name):
    for image in IMAGES.values():
        for strength in (-1.0, -0.55, 0.1, 0.9, 1.0):
            found = OPERATIONS[name](tf.constant(image), tf.constant(strength, tf.float64))
            expected = PILLOW[name](Image.fromarray(image), strength)
            np.testing.assert_array_equal(found, expected, err_msg=f"{strength}")


@tf.function
def draw(function, n):
    """The results of a function of a seed for n places in an epoch."""
    places = tf.range(n, dtype=tf.int64)
    return tf.map_fn(lambda i: function(tf.stack([7, i])), places, fn_output_signature=tf.uint8)


def test_operations_and_signs_are_drawn_evenly(monkeypatch):
    """Two operations that write their number and strength."""

    def write(image, strength, number):
        return tf.concat([image[:, 1:], tf.cast([[[number, 1 + 10 * strength, 0]]], tf.uint8)], 1)

    operations = {str(i): functools.partial(write, number=i) for i in range(5)}
    monkeypatch.setattr(randaugment, "OPERATIONS", operations)
    image = tf.zeros([1, 2, 3], tf.uint8)
    drawn = draw(lambda seed: randaugment.randaugment(image, 2, 9.0, seed), 1000).numpy()[:, 0]
    for operation in (0, 1):
        counts = collections.Counter(map(tuple, drawn[:, operation, :2].tolist()))
        assert counts.keys() == set(itertools.product(range(5), (10, 248)))
        assert 70 < min(counts.values()) <= max(counts.values()) < 130
    assert len({row.tobytes() for row in drawn}) == 100


def test_random_erasing():
    """Windows of random pixels, within bounds and evenly over the image, in a quarter of images."""
    image = np.zeros((60, 80, 3), np.uint8)
    erased = draw(lambda seed: augmentation.erase(tf.constant(image), 0.25, seed), 1000).numpy()
    changed = erased.any(axis=-1)
    windows = changed[changed.any(axis=(1, 2))]
    assert 200 < len(windows) < 300
    boxes = [[np.flatnonzero(w.any(axis=axis))[[0, -1]] for axis in (1, 0)] for w in windows]
    height, width = (np.diff(boxes)[..., 0] + 1).T
    assert (windows.sum(axis=(1, 2)) == height * width).mean() > 0.98  # few random pixels are 0
    share, ratio = height * width / image[..., 0].size, width / height
    assert 0.01 < share.min() < 0.05 < 0.3 < share.max() < 0.35
    assert 0.25 < ratio.min() < 0.4 < 2.5 < ratio.max() < 3.7
    assert 0.14 < share.mean() < 0.2
    assert changed.any(axis=(0, 1)).all()
    assert changed.any(axis=(0, 2)).all()
    pixels = erased[changed]
    assert 120 < pixels.mean() < 135
    assert pixels.std() > 70
