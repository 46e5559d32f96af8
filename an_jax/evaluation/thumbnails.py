"""Thumbnails of the images that models misclassify with the highest confidence, for the report."""

import itertools
import json
from collections.abc import Iterator

import numpy as np
from etils import epath

from an_jax.data.images.decoding import decode_rgb
from an_jax.data.images.thumbnails import make_thumbnail
from an_jax.data.sets.opening import Source
from an_jax.data.sources import ImageList
from an_jax.data.tf_on_cpu import explain, tf
from an_jax.errors import InputError, file_errors
from an_jax.evaluation.predictions import Predictions
from an_jax.files import absolute, replacing
from an_jax.watchdog import note_progress

DIRECTORY = "thumbnails"
MAX_PER_MODEL = 60
MAX_PER_SET = 400


def thumbnails_path(output_dir: epath.Path, dataset: str) -> epath.Path:
    """Returns the path of a test set's thumbnails."""
    return output_dir / DIRECTORY / f"{dataset}.json"


def write_thumbnails(
    output_dir: epath.Path,
    dataset: str,
    source: Source,
    filenames: np.ndarray,
    predictions: Predictions,
    space: str,
) -> None:
    """Adds a model's most confident mistakes to the thumbnails of a test set.

    The file holds `root` (directory of the images, None if they are not files), `fingerprint` of
    the source, and `images`: file name -> `rank` and data `uri`. `rank` is the image's position
    among a model's mistakes in order of descending confidence, the minimum over the models. The
    MAX_PER_SET images with the smallest ranks are kept. Thumbnails of a source with another
    fingerprint are dropped.

    Args:
        output_dir: directory of the results.
        dataset: name of the test set.
        source: the images.
        filenames: the file name of each image of the source, bytes [n].
        predictions: for the images that the test set scores.
        space: label space of the predictions.

    Raises:
        InputError: an image cannot be read, or the file cannot be written.
    """
    path = thumbnails_path(output_dir, dataset)
    images = read_thumbnails(path, {source.fingerprint}).get("images", {})
    ranks = {name: image["rank"] for name, image in images.items()}
    for rank, name in enumerate(_find_mistakes(predictions, space)):
        ranks[name] = min(rank, ranks.get(name, rank))
    ranks = dict(sorted(ranks.items(), key=lambda item: item[1])[:MAX_PER_SET])
    uris = {name: image["uri"] for name, image in images.items() if name in ranks}
    missing = [name.encode() for name in ranks.keys() - uris.keys()]
    try:
        for name, encoded in _read(source, np.flatnonzero(np.isin(filenames, missing))):
            uris[name] = make_thumbnail(decode_rgb(encoded).numpy())
            note_progress(f"a thumbnail of {dataset}")
    except file_errors() as error:
        raise InputError(
            f"{dataset}: cannot read an image for its thumbnail: {explain(error)}"
        ) from error
    root = source.root if isinstance(source, ImageList) and source.encoded is None else None
    content = {
        "root": root and str(absolute(root)),
        "fingerprint": source.fingerprint,
        "images": {name: {"rank": ranks[name], "uri": uris[name]} for name in ranks},
    }
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content))


def read_thumbnails(path: epath.Path, fingerprints: set[str]) -> dict:
    """Reads a file of `write_thumbnails`.

    Returns:
        Its content, or {} if there is no valid file, or it is of a source with another fingerprint.
    """
    try:
        content = json.loads(path.read_text())
        return content if content["fingerprint"] in fingerprints else {}
    except file_errors(ValueError, KeyError, TypeError):
        return {}


def _find_mistakes(predictions: Predictions, space: str) -> list[str]:
    """Returns the file names of the most confident mistakes, the most confident first."""
    best, confidence = predictions.classes[space][:, 0], predictions.confidence[space][:, 0]
    wrong = np.flatnonzero(best != predictions.labels)
    first = wrong[np.argsort(-confidence[wrong], kind="stable")][:MAX_PER_MODEL]
    return [name.decode() for name in predictions.filenames[first].tolist()]


def _read(source: Source, positions: np.ndarray) -> Iterator[tuple[str, tf.Tensor]]:
    """Yields file names and contents."""
    if isinstance(source, ImageList):
        examples = iter(source.read(positions))
    else:  # tfds reads ranges only; one record costs less than a pass over the set
        ranges = (range(i, i + 1) for i in positions.tolist())
        examples = itertools.chain.from_iterable(map(source.read, ranges))
    for example in examples:
        yield example["filename"].numpy().decode(), example["image"]
