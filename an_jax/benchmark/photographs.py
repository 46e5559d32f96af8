"""Photographs to measure input with."""

from pathlib import Path

from PIL import Image

from an_jax.errors import InputError

SIZE = (500, 375)  # what most ImageNet images measure, pixels
QUALITIES = (75, 90, 96)


def photographs(folder: str | None, scratch: Path) -> list[Path]:
    """The JPEGs of a folder, or scikit-learn's two photographs at ImageNet's size and qualities.

    Args:
        folder: is searched with all folders in it; None for scikit-learn's.
        scratch: directory where those are put.

    Raises:
        InputError: none there, or scikit-learn is not installed.
    """
    if folder is not None:
        endings = (".jpg", ".jpeg")
        files = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in endings)
        if not files:
            raise InputError(f"no JPEGs in {folder}")
        return [file.absolute() for file in files]
    try:
        from sklearn.datasets import load_sample_images
    except ImportError:
        raise InputError(
            "give --images FOLDER with JPEGs, or install scikit-learn: pip install -e '.[demo]'"
        ) from None
    for number, photograph in enumerate(load_sample_images().images):
        image = Image.fromarray(photograph).resize(SIZE, Image.Resampling.LANCZOS)
        for quality in QUALITIES:
            image.save(scratch / f"{number}_{quality}.jpg", quality=quality)
    return sorted(scratch.glob("*.jpg"))
