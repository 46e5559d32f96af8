"""The digits of scikit-learn as image sets, and their shifts."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from an_jax.data.sets import digits
from an_jax.data.sets.opening import open_image_set
from tests.pictures import decode


def test_digits():
    sources = (digits.open_digits(split) for split in ("train", "test"))
    train, test = ([*s.read(range(len(s))).as_numpy_iterator()] for s in sources)
    assert (len(train), len(test)) == (1437, 360)
    labels = [example["label"] for example in train + test]
    np.testing.assert_array_equal(labels, load_digits().target)
    for example in train[:20] + test:
        image = decode(example["image"])
        assert image.shape == (32, 32, 3)
        assert image.min() == 0
        assert image.max() > 150


@pytest.mark.parametrize("shift", digits.SHIFTS)
def test_digits_shifts(shift):
    source = open_image_set(f"digits-{shift}", None, False)
    again, plain = digits.open_digits("test", shift), open_image_set("digits", None, False)
    assert source.encoded == again.encoded
    np.testing.assert_array_equal(source.labels, plain.labels)
    changed = sum(a != b for a, b in zip(source.encoded, plain.encoded, strict=True))
    assert changed == len(source) == 360
    assert {decode(encoded).shape for encoded in source.encoded} == {(32, 32, 3)}


def test_digits_shifts_as_documented():
    plain, translated, contrast, blurred, noisy = (
        np.stack([decode(e) for e in digits.open_digits("test", shift).encoded]).astype(float)
        for shift in (None, "translation", "contrast", "blur", "noise")
    )
    np.testing.assert_array_equal(translated, np.roll(plain, (3, -3), axis=(1, 2)))
    means = plain.mean((1, 2), keepdims=True)
    assert np.abs(contrast - (means + 0.6 * (plain - means))).max() <= 1
    assert abs(blurred.mean() - plain.mean()) < 1
    assert np.diff(blurred, axis=1).std() < np.diff(plain, axis=1).std() / 2
    assert 40 < (noisy - plain).std() < 60
