"""Encoded photographs to measure input with."""

import io
from pathlib import Path

from an_jax.errors import InputError

SIZE = (500, 375)  # what most ImageNet images measure, pixels
QUALITIES = (75, 90, 96)
LIMIT = 256  # images of a folder that are used


def read_photographs(folder: str | None) -> list[bytes]:
    """The JPEGs of a folder, or scikit-learn's two photographs at ImageNet's size and qualities.

    Raises:
        InputError: none there, or scikit-learn is not installed.
    """
    if folder is not None:
        endings = (".jpg", ".jpeg")
        files = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in endings)
        if not files:
            raise InputError(f"no JPEGs in {folder}")
        return [file.read_bytes() for file in files[:LIMIT]]
    try:
        from PIL import Image
        from sklearn.datasets import load_sample_images
    except ImportError:
        raise InputError(
            "give --images FOLDER with JPEGs, or install scikit-learn: pip install -e '.[demo]'"
        ) from None
    encoded = []
    for photograph in load_sample_images().images:
        image = Image.fromarray(photograph).resize(SIZE, Image.Resampling.LANCZOS)
        for quality in QUALITIES:
            file = io.BytesIO()
            image.save(file, "JPEG", quality=quality)
            encoded.append(file.getvalue())
    return encoded
