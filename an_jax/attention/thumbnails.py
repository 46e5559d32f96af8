"""Small pictures of what a model saw, as data URIs."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from an_jax.data.eval_pipeline import eval_batches
from an_jax.data.images.thumbnails import make_thumbnail
from an_jax.data.sets.opening import Source
from an_jax.data.sources import ImageList
from an_jax.zoo import Preprocessing


def make_thumbnails(
    source: Source, positions: Sequence[int], preprocessing: Preprocessing
) -> Iterator[str]:
    """Yields the images at `positions`, preprocessed and shrunk, as WebP data URIs.

    Raises:
        InputError: a file cannot be read or decoded.
    """
    yield from map(make_thumbnail, _read(source, positions, preprocessing))


def _read(
    source: Source, positions: Sequence[int], preprocessing: Preprocessing
) -> Iterator[np.ndarray]:
    """Yields preprocessed images, uint8 [S, S, 3]."""
    shares = [range(position, position + 1) for position in positions]
    if isinstance(source, ImageList):  # in any order: one pipeline reads them all
        encoded = source.encoded
        source = dataclasses.replace(
            source,
            filenames=[source.filenames[i] for i in positions],
            labels=source.labels[list(positions)],
            encoded=None if encoded is None else [encoded[i] for i in positions],
        )
        shares = [range(len(positions))]
    for share in shares:
        for batch in eval_batches(source, share, min(64, len(share)), preprocessing):
            yield from batch["image"][batch["mask"]]
