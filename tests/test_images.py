"""Decoding, resizing and cropping equal Pillow's, bit for bit; random windows are torchvision's."""

import functools
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats

from an_jax import zoo
from an_jax.data.images import augmentation, cropping, decoding
from an_jax.data.tf_on_cpu import tf
from tests import pictures
from tests.pictures import checkerboard, decode, encode, noise, smooth

IMAGE = tf.TensorSpec([None, None, 3], tf.uint8)
BYTES = tf.TensorSpec([], tf.string)
interpolations = pytest.mark.parametrize("interpolation", zoo.INTERPOLATIONS)
image_size = tf.function(decoding.image_size, input_signature=[BYTES])


@tf.function(input_signature=[BYTES, tf.TensorSpec([4], tf.int32)])
def decode_window(encoded, window):
    part = decoding.add_margin(window, decoding.image_size(encoded))
    top, left, height, width = tf.unstack(window - tf.pad(part[:2], [[0, 2]]))
    return decoding.decode_part(encoded, part)[top : top + height, left : left + width]


@functools.cache
def resize_and_center_crop(size, crop, interpolation):
    def resize(image):
        plan = cropping.plan_center_crop(tf.shape(image)[:2], size, crop, interpolation)
        return cropping.render(image, plan, interpolation)

    return tf.function(resize, input_signature=[IMAGE])


@functools.cache
def resize_to_square(side, interpolation):
    def resize(image):
        size = tf.shape(image)[:2]
        window = tf.concat([[0, 0], size], 0)
        plan = cropping.plan_resized_window(size, window, side, tf.constant(False), interpolation)
        return cropping.render(image, plan, interpolation)

    return tf.function(resize, input_signature=[IMAGE])


def assert_resized_as_pillow(image, size, crop, interpolation):
    expected = pictures.resize_and_center_crop(image, size, crop, interpolation)
    actual = resize_and_center_crop(size, crop, interpolation)(image)
    np.testing.assert_array_equal(actual, expected)


@st.composite
def images(draw, longest_over_shortest=None):
    shorter = draw(st.integers(1, 700))
    limit = shorter * longest_over_shortest if longest_over_shortest else 700
    height, width = draw(st.permutations([shorter, draw(st.integers(shorter, min(limit, 700)))]))
    return draw(st.sampled_from([noise, smooth, checkerboard]))(
        height, width, draw(st.integers(0, 999))
    )


@interpolations
@pytest.mark.parametrize(
    ("size", "crop"), [(256, 224), (16, 16), (235, 224), (257, 257), (320, 288)]
)
def test_resize_and_center_crop(size, crop, interpolation):
    @settings(derandomize=True, deadline=None, database=None, max_examples=40)
    @given(images(longest_over_shortest=20))
    def check(image):
        assert_resized_as_pillow(image, size, crop, interpolation)

    check()


@interpolations
@pytest.mark.parametrize("picture", [noise, checkerboard])
@pytest.mark.parametrize(
    "shape", [(1, 1), (260, 3000), (3000, 260), (2, 700), (700, 2), (256, 256)]
)
def test_extreme_shapes(shape, picture, interpolation):
    assert_resized_as_pillow(picture(*shape), 256, 224, interpolation)


@pytest.mark.slow
@interpolations
def test_large_image(interpolation):
    assert_resized_as_pillow(noise(4000, 6000), 256, 224, interpolation)


@interpolations
@pytest.mark.parametrize("side", [16, 61, 224])
def test_resize_both_directions(side, interpolation):
    @settings(derandomize=True, deadline=None, database=None, max_examples=20)
    @given(images())
    def check(image):
        expected = np.asarray(pictures.resize(image, side, side, interpolation))
        actual = resize_to_square(side, interpolation)(image)
        # In each pass, a sum close to a half may be rounded in the other direction.
        assert np.abs(np.int32(actual) - expected).max() <= 2

    check()


def with_alpha(mode):
    def convert(image):
        alpha = np.linspace(0, 255, image.width * image.height).reshape(image.size[::-1])
        image = image.convert(mode)
        image.putalpha(Image.fromarray(np.uint8(alpha)))
        return image

    return convert


def cmyk(image):
    """Four planes that vary independently."""
    return Image.merge("CMYK", (*image.split(), image.convert("L").transpose(Image.ROTATE_180)))


def set_adobe_transform(encoded, transform):
    """Changes the color transform in a JPEG's APP14 segment; removes the segment if None."""
    start = encoded.index(b"\xff\xee\x00\x0eAdobe")
    kept = b"" if transform is None else encoded[start : start + 15] + bytes([transform])
    return encoded[:start] + kept + encoded[start + 16 :]


# Name -> mode of the file, conversion of an RGB image to it, options of Pillow's save.
FORMATS = {
    "jpeg_75": ("RGB", None, {"quality": 75}),
    "jpeg_95_444": ("RGB", None, {"quality": 95, "subsampling": "4:4:4"}),
    "jpeg_95_420": ("RGB", None, {"quality": 95, "subsampling": "4:2:0"}),
    "jpeg_75_444": ("RGB", None, {"quality": 75, "subsampling": "4:4:4"}),
    "jpeg_422": ("RGB", None, {"subsampling": "4:2:2"}),
    "jpeg_411": ("RGB", None, {"subsampling": "4:1:1"}),
    "jpeg_progressive": ("RGB", None, {"quality": 75, "progressive": True}),
    "jpeg_rgb": ("RGB", None, {"keep_rgb": True}),
    "jpeg_gray": ("L", lambda i: i.convert("L"), {}),
    "jpeg_cmyk": ("CMYK", cmyk, {}),
    "png": ("RGB", None, {"file_format": "PNG"}),
    "png_rgba": ("RGBA", with_alpha("RGBA"), {"file_format": "PNG"}),
    "png_gray": ("L", lambda i: i.convert("L"), {"file_format": "PNG"}),
    "png_gray_alpha": ("LA", with_alpha("LA"), {"file_format": "PNG"}),
    "png_gray_16_bit": (
        "I;16",
        lambda i: Image.fromarray(2 * np.uint16(i.convert("L"))),
        {"file_format": "PNG"},
    ),
    "png_1_bit": ("1", lambda i: i.convert("1"), {"file_format": "PNG"}),
    "png_palette": ("P", lambda i: i.quantize(200), {"file_format": "PNG"}),
    "png_palette_4_bit": ("P", lambda i: i.quantize(9), {"file_format": "PNG"}),
    "png_palette_transparent": (
        "P",
        lambda i: i.quantize(200),
        {"file_format": "PNG", "transparency": bytes(range(200))},
    ),
    "webp": ("RGB", None, {"file_format": "WEBP"}),
    "webp_rgba": ("RGBA", with_alpha("RGBA"), {"file_format": "WEBP"}),
    "bmp": ("RGB", None, {"file_format": "BMP"}),
    "gif": ("P", lambda i: i.quantize(200), {"file_format": "GIF"}),
    "tiff": ("RGB", None, {"file_format": "TIFF"}),
    "tiff_cmyk": ("CMYK", cmyk, {"file_format": "TIFF"}),
    "ppm": ("RGB", None, {"file_format": "PPM"}),
    "pgm": ("L", lambda i: i.convert("L"), {"file_format": "PPM"}),
}


def encode_as(name, pixels):
    _, convert, options = FORMATS[name]
    image = Image.fromarray(pixels)
    return encode(convert(image) if convert else image, **options)


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")  # Pillow's
@pytest.mark.parametrize("name", FORMATS)
def test_formats(name):
    for photograph in pictures.photographs():
        encoded = encode_as(name, photograph)
        assert Image.open(io.BytesIO(encoded)).mode == FORMATS[name][0]
        image = decoding.decode_rgb(encoded).numpy()
        np.testing.assert_array_equal(image, decode(encoded))
        np.testing.assert_array_equal(image_size(encoded), photograph.shape[:2])
        for interpolation in zoo.INTERPOLATIONS:
            assert_resized_as_pillow(image, 256, 224, interpolation)


@settings(derandomize=True, deadline=None, database=None, max_examples=60)
@given(
    picture=st.sampled_from([noise, smooth]),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 999),
    quality=st.integers(1, 100),
    transform=st.sampled_from([None, 0, 2]),
)
def test_cmyk_jpegs(picture, size, seed, quality, transform):
    """CMYK and YCCK with Adobe's inversion (transform 0 and 2), and CMYK without it."""
    image = cmyk(Image.fromarray(picture(*size, seed)))
    encoded = set_adobe_transform(encode(image, quality=quality), transform)
    np.testing.assert_array_equal(decoding.decode_rgb(encoded), decode(encoded))
    np.testing.assert_array_equal(image_size(encoded), size)


@pytest.mark.parametrize("size", [(1, 1), (300, 200), (65535, 1), (2, 70000)])
def test_size_of_a_png(size):
    """The header is enough if no side is longer than a JPEG's can be."""
    encoded = encode(noise(*size), "PNG")
    np.testing.assert_array_equal(image_size(encoded), size)
    if max(size) < 2**16:
        np.testing.assert_array_equal(image_size(encoded[:24]), size)


@pytest.mark.parametrize("sides", [b"\0\0\0\0\0\0\0\1", b"\1\0\0\x20\1\0\0\x20"])
def test_size_of_a_png_with_a_damaged_header(sides):
    encoded = encode(noise(32, 32), "PNG")
    with pytest.raises(tf.errors.OpError):
        image_size(encoded[:16] + sides + encoded[24:])


@pytest.mark.parametrize("kind", pictures.SPOILT)
def test_damaged_images_are_refused(kind):
    with pytest.raises(tf.errors.OpError):
        decoding.decode_rgb(pictures.SPOILT[kind])


def test_orientation_is_ignored():
    exif = Image.Exif()
    exif[0x0112] = 6
    encoded = encode(pictures.photographs()[0], exif=exif)
    assert Image.open(io.BytesIO(encoded)).getexif()[0x0112] == 6
    np.testing.assert_array_equal(decoding.decode_rgb(encoded), decode(encoded))
    np.testing.assert_array_equal(image_size(encoded), (427, 640))


def random_range(rng, n):
    """Offset and length of a part of n pixels; a third of them begin, a third end at the border."""
    length = rng.integers(1, n + 1)
    return rng.choice([0, n - length, rng.integers(0, n - length + 1)]), length


@pytest.mark.parametrize("shape", [(101, 83), (64, 48), (3, 90), (1, 1)])
@pytest.mark.parametrize(
    "name", ["jpeg_75", "jpeg_95_444", "jpeg_progressive", "jpeg_411", "jpeg_cmyk", "png", "webp"]
)
def test_decode_window(name, shape):
    height, width = shape
    encoded = encode_as(name, pictures.photographs()[1][90 : 90 + height, 60 : 60 + width])
    whole, rng = decode(encoded), np.random.default_rng(0)
    windows = [(random_range(rng, height), random_range(rng, width)) for _ in range(150)]
    for (top, rows), (left, columns) in [((0, height), (0, width)), *windows]:
        actual = decode_window(encoded, [top, left, rows, columns])
        np.testing.assert_array_equal(actual, whole[top : top + rows, left : left + columns])


def random_window(size, scale, seed):
    return augmentation.random_window(size, scale, augmentation.draw(seed)["window"])


@functools.cache
def random_windows(size, scale, n):
    """Windows [n, 4] for the seeds of a first epoch."""

    @tf.function
    def sample():
        return tf.map_fn(
            lambda i: random_window(tf.constant(size), scale, tf.stack([7, i])),
            tf.range(n, dtype=tf.int64),
            fn_output_signature=tf.int32,
        )

    return sample().numpy()


@pytest.mark.parametrize("scale", [(0.08, 1.0), (1.0, 1.0), (1e-4, 0.01)])
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (1000, 3), (3, 1000), (37, 53), (375, 500)])
def test_random_window_is_inside(size, scale):
    top, left, height, width = random_windows(size, scale, 300).T
    assert min(top.min(), left.min()) >= 0
    assert min(height.min(), width.min()) >= 1
    assert max(top + height) <= size[0]
    assert max(left + width) <= size[1]


@pytest.mark.parametrize("size", [(400, 300), (375, 500), (224, 224)])
def test_random_window_is_within_bounds(size):
    _, _, height, width = random_windows(size, (0.08, 0.5), 1000).T
    area = size[0] * size[1]
    assert ((height + 0.5) * (width + 0.5) >= 0.08 * area).all()
    assert ((height - 0.5) * (width - 0.5) <= 0.5 * area).all()
    assert ((width + 0.5) / (height - 0.5) >= 3 / 4).all()
    assert ((width - 0.5) / (height + 0.5) <= 4 / 3).all()


def test_random_window_distribution():
    """Every window of at most half a square fits, so that no rejection skews the distribution."""
    top, left, height, width = random_windows((1000, 1000), (0.08, 0.5), 2000).T
    log_range = 2 * np.log(4 / 3)
    samples = {
        "area": (height * width / 1e6 - 0.08) / 0.42,
        "ratio": np.log(width / height) / log_range + 0.5,
        "top": top / (1001 - height),
        "left": left / (1001 - width),
    }
    for name, sample in samples.items():
        assert stats.kstest(sample, "uniform").pvalue > 1e-3, name
    correlations = np.corrcoef(list(samples.values())) - np.eye(4)
    assert np.abs(correlations).max() < 0.1


def test_random_window_reaches_every_border():
    top, left, height, width = random_windows((12, 12), (0.5, 0.6), 300).T
    for gap in (top, left, 12 - top - height, 12 - left - width):
        assert 0.15 < np.mean(gap == 0) < 0.5


@pytest.mark.parametrize("size", [(1000, 3), (3, 1000), (1, 9), (640, 70)])
def test_random_window_falls_back_to_the_middle(size):
    """As in torchvision, if no window of the whole area has an allowed ratio."""
    height, width = size
    rows = min(height, round(width / (3 / 4)))
    columns = min(width, round(height * (4 / 3)))
    expected = [(height - rows) // 2, (width - columns) // 2, rows, columns]
    assert (random_windows(size, (1.0, 1.0), 50) == expected).all()


def test_random_window_depends_on_the_seed():
    def windows(first, second):
        return random_window(tf.constant([375, 500]), (0.08, 1.0), tf.constant([first, second]))

    a, same, b, c = (windows(*seed).numpy().tolist() for seed in [(3, 5), (3, 5), (3, 6), (4, 5)])
    assert a == same
    assert a not in (b, c)


@functools.cache
def augment(flip):
    def crop(encoded, seed):
        size = decoding.image_size(encoded)
        draws = augmentation.draw(seed)
        plan = augmentation.plan_augmented(size, 48, "bicubic", (0.08, 1.0), flip, draws)
        return cropping.render(encoded, plan, "bicubic")

    return tf.function(crop, input_signature=[BYTES, tf.TensorSpec([2], tf.int64)])


def test_augment():
    encoded = encode(pictures.photographs()[0])
    photograph = decode(encoded)
    windows = random_windows(photograph.shape[:2], (0.08, 1.0), 60)
    mirrored, differing = [], []
    for i, (top, left, height, width) in enumerate(windows):
        window = photograph[top : top + height, left : left + width]
        expected = np.asarray(pictures.resize(window, 48, 48, "bicubic"))
        straight = augment(False)(encoded, [7, i]).numpy()
        assert np.abs(np.int32(straight) - expected).max() <= 1
        differing.append(np.mean(straight != expected))
        image = augment(True)(encoded, [7, i]).numpy()
        mirrored.append(not np.array_equal(image, straight))
        np.testing.assert_array_equal(image, straight[:, :: -1 if mirrored[i] else 1])
        if i < 5:
            np.testing.assert_array_equal(image, augment(True)(encoded, [7, i]))
    assert np.mean(differing) < 1e-3
    assert 20 <= sum(mirrored) <= 40
    areas = windows[:, 2] * windows[:, 3]
    assert abs(np.corrcoef(mirrored, areas)[0, 1]) < 0.4
