"""Images for tests, and Pillow's results of decoding, resizing and cropping them."""

import functools
import io

import numpy as np
from PIL import Image

from an_jax.data.sources import ImageList


@functools.cache
def photographs() -> list[np.ndarray]:
    """Loads two real photographs, uint8 [427, 640, 3]."""
    from sklearn.datasets import load_sample_images

    return load_sample_images().images


def encode(image: Image.Image | np.ndarray, file_format: str = "JPEG", **options) -> bytes:
    """Returns the contents of an image file written by Pillow."""
    file = io.BytesIO()
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    image.save(file, file_format, **options)
    return file.getvalue()


def decode(encoded: bytes) -> np.ndarray:
    """Decodes with Pillow; uint8 [H, W, 3]."""
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))


def resize(image: np.ndarray, width: int, height: int, interpolation: str) -> Image.Image:
    """Pillow's resize."""
    return Image.fromarray(image).resize((width, height), Image.Resampling[interpolation.upper()])


def resize_and_center_crop(image: np.ndarray, size: int, crop: int, interpolation: str):
    """torchvision's Resize(size) and CenterCrop(crop); uint8 [crop, crop, 3]."""
    height, width = image.shape[:2]
    if height <= width:
        width, height = int(size * width / height), size
    else:
        width, height = size, int(size * height / width)
    left, top = round((width - crop) / 2), round((height - crop) / 2)
    resized = resize(image, width, height, interpolation)
    return np.asarray(resized.crop((left, top, left + crop, top + crop)))


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """uint8 [height, width, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def smooth(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Waves, with different lengths in each direction and channel; uint8 [height, width, 3]."""
    across, down, phase = np.random.default_rng(seed).uniform(0, 0.3, (3, 3))
    y, x = np.arange(height)[:, None, None], np.arange(width)[:, None]
    return np.uint8(127.5 + 64 * np.sin(down * y + 20 * phase) + 63 * np.sin(across * x))


def checkerboard(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A checkerboard of 0 and 255, fields of 1 to 8 pixels; uint8 [height, width, 3]."""
    across, down = np.random.default_rng(seed).integers(1, 9, (2, 3))
    y, x = np.arange(height)[:, None, None], np.arange(width)[:, None]
    return np.uint8((y // down + x // across) % 2 * 255)


def in_memory(n, shape=(12, 10)):
    """A source of n different images; image i has label i."""
    encoded = [encode(noise(*shape, seed=i), "PNG") for i in range(n)]
    return ImageList([f"{i}.png" for i in range(n)], np.arange(n, dtype=np.int32), encoded=encoded)


JPEG = encode(noise(40, 40))
# Contents of files that cannot be decoded.
SPOILT = {
    "truncated": JPEG[: len(JPEG) // 2],
    "text": b"<html>404 Not Found</html>",
    "empty": b"",
    "truncated_png": encode(noise(40, 40), "PNG")[:2000],
    "truncated_webp": encode(noise(40, 40), "WEBP")[:1000],
}
