"""Small pictures for pages."""

import base64
import io

import numpy as np
from PIL import Image

SIDE = 64  # pixels; the longer side of a thumbnail


def make_thumbnail(pixels: np.ndarray) -> str:
    """Returns an image, uint8 [H, W, 3], not larger than SIDE, as a WebP data URI."""
    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.save(file, "WEBP", quality=75)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
