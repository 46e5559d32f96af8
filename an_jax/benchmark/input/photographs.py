"""Photographs to measure input pipelines with."""

from pathlib import Path

from PIL import Image

from an_jax.errors import InputError
from an_jax.files import absolute

SIZE = (500, 375)  # the most common size of ImageNet images, pixels
QUALITIES = (75, 90, 96)


def find_photographs(folder: str | None, scratch: Path) -> list[Path]:
    """Returns the JPEGs of a folder, or writes scikit-learn's photographs at ImageNet's size.

    Args:
        folder: searched recursively; None for scikit-learn's two photographs.
        scratch: directory where those are written, in several JPEG qualities.

    Raises:
        InputError: there are no JPEGs, or scikit-learn is not installed.
    """
    if folder is not None:
        endings = (".jpg", ".jpeg")
        files = sorted(p for p in Path(absolute(folder)).rglob("*") if p.suffix.lower() in endings)
        if not files:
            raise InputError(f"{folder}: no JPEGs (*.jpg, *.jpeg)")
        return files
    return write_photographs(scratch, SIZE)


def write_photographs(directory: Path, size: tuple[int, int]) -> list[Path]:
    """Writes scikit-learn's two photographs as JPEGs of several qualities.

    Args:
        directory: where they are written.
        size: width and height.

    Raises:
        InputError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_sample_images
    except ImportError:
        raise InputError(
            "the photographs need scikit-learn: pip install -e '.[demo]', or pass --images=FOLDER"
        ) from None
    for number, photograph in enumerate(load_sample_images().images):
        image = Image.fromarray(photograph).resize(size, Image.Resampling.LANCZOS)
        for quality in QUALITIES:
            image.save(directory / f"{number}_{quality}.jpg", quality=quality)
    return sorted(directory.glob("*.jpg"))
