"""A check of image files by their first bytes, before a training run that would fail on them."""

import re
from concurrent.futures import ThreadPoolExecutor

from an_jax import parallel
from an_jax.data.sources import ImageList
from an_jax.data.tf_on_cpu import tf
from an_jax.errors import InputError

_SUPPORTED = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n")


def check_headers(images: ImageList) -> None:
    """Checks that the images this process evaluates begin like a JPEG or PNG file.

    Raises:
        InputError: some do not.
        tf.errors.OpError: a file cannot be read.
    """
    if images.encoded is not None:
        return
    paths = [images.name(position) for position in parallel.local_range(len(images))]
    with ThreadPoolExecutor(32) as pool:  # opening a file on gs:// takes 0.1 seconds
        headers = list(pool.map(_read_header, paths))
    invalid = [p for p, header in zip(paths, headers, strict=True) if not _SUPPORTED.match(header)]
    if invalid:
        more = f" (and {len(invalid) - 1:,} more)" if len(invalid) > 1 else ""
        raise InputError(
            f"{invalid[0]}{more} is no JPEG or PNG file, whatever its suffix: convert, replace or "
            "remove it"
        )


def _read_header(path: str) -> bytes:
    with tf.io.gfile.GFile(path, "rb") as file:
        return file.read(8)
