"""Saved predictions as data for the error browser of the page."""

import functools
import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from an_jax.data.sets.test_sets import TestSet, get_test_set
from an_jax.errors import InputError
from an_jax.evaluation.prediction_files import CLASS_NAMES, match_fingerprint, predictions_directory
from an_jax.evaluation.predictions import Predictions
from an_jax.evaluation.result import Result
from an_jax.evaluation.scoring import scored_predictions
from an_jax.evaluation.thumbnails import read_thumbnails, thumbnails_path
from an_jax.files import is_remote

_NOT_SAVED = "not saved; evaluate it with --save_predictions"
_OTHER_RESULT = "not those of the result; evaluate it again with --save_predictions"
_OTHER_IMAGES = "for other images or classes than those of the models in the menu"

_BYTES = 8  # an image, see `_pack`


class _Images(NamedTuple):
    """Images and classes that models have in common.

    Attributes:
        files: JSON {"names": file names [n], "labels": int [n]}.
        classes: JSON list of the name of each class.
    """

    files: bytes
    classes: bytes


class _Saved(NamedTuple):
    """Saved predictions of a model; see `_pack` for the scores."""

    model: str
    images: _Images
    fingerprint: str
    scores: bytes


def collect_predictions(
    output_dir: epath.Path, results: Sequence[Result], page_dir: epath.Path
) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    """Collects the saved predictions for test sets with the metric "accuracy".

    Predictions count as saved if --save_predictions wrote their CSV file. They must be those of the
    result, and of the same file names, labels and classes as those of most other models.

    Args:
        output_dir: directory of the results.
        results: the entries of its results.json.
        page_dir: directory of the page, for links to the images.

    Returns:
        A JSON value for each test set with saved predictions, and blob name -> content. A name is a
        digest of the content. A test set has

        - `name`, and the number of `images`;
        - `files` and `classes`: blobs, JSON: {"names", "labels"}, and a list of class names;
        - `models`: `name` and blob of `scores` (see `_pack`) of each;
        - `left_out`: the `name` of other models, and `why`;
        - `thumbnails`: blob, JSON: {"root", "images": {file name: data URI}}; or None. `root` is a
          path relative to the page, a URL of Google Cloud Storage, or None.
    """
    by_dataset = defaultdict(list)
    for result in results:
        if get_test_set(result.dataset).metric == "accuracy":
            by_dataset[result.dataset].append(result)
    blobs: dict[str, bytes] = {}
    collected = [_collect(output_dir, page_dir, *item, blobs) for item in by_dataset.items()]
    return [*filter(None, collected)], blobs


def _collect(
    output_dir: epath.Path,
    page_dir: epath.Path,
    dataset: str,
    results: list[Result],
    blobs: dict[str, bytes],
) -> dict[str, Any] | None:
    """Collects one test set; adds its blobs. Returns None if nothing was saved."""
    groups: dict[_Images, list[_Saved]] = defaultdict(list)
    left_out = []
    read = functools.partial(_read, output_dir, get_test_set(dataset))
    with ThreadPoolExecutor(8) as pool:  # files on gs:// take long
        all_saved = [*pool.map(read, results)]
    for result, saved in zip(results, all_saved, strict=True):
        if isinstance(saved, str):
            left_out.append({"name": result.model, "why": saved})
        else:
            groups[saved.images].append(saved)
    if not groups:
        return None
    images = max(groups, key=lambda images: len(groups[images]))
    members = groups.pop(images)
    others = (saved for group in groups.values() for saved in group)
    left_out += [{"name": saved.model, "why": _OTHER_IMAGES} for saved in others]

    def add(content: bytes) -> str:
        name = hashlib.sha256(content).hexdigest()[:16]
        blobs[name] = content
        return name

    path = thumbnails_path(output_dir, dataset)
    thumbnails = read_thumbnails(path, {saved.fingerprint for saved in members})
    return {
        "name": dataset,
        "images": len(members[0].scores) // _BYTES,
        "files": add(images.files),
        "classes": add(images.classes),
        "models": [{"name": saved.model, "scores": add(saved.scores)} for saved in members],
        "left_out": left_out,
        "thumbnails": add(_link(thumbnails, page_dir)) if thumbnails else None,
    }


def _link(thumbnails: dict[str, Any], page_dir: epath.Path) -> bytes:
    """Returns JSON of the thumbnails, with a root for links in a page."""
    images = {name: image["uri"] for name, image in thumbnails["images"].items()}
    root = link_root(thumbnails["root"], page_dir)
    return json.dumps({"root": root, "images": images}).encode()


def link_root(directory: str | None, page_dir: epath.Path) -> str | None:
    """Returns where a page finds an absolute directory; None if it cannot."""
    if directory is None:
        return None
    if is_remote(epath.Path(directory)):
        return directory.replace("gs://", "https://storage.cloud.google.com/", 1)
    return None if is_remote(page_dir) else os.path.relpath(directory, page_dir)


def _read(output_dir: epath.Path, test_set: TestSet, result: Result) -> _Saved | str:
    """Returns the saved predictions of a result, or the reason why there are none."""
    directory = predictions_directory(output_dir, result.model)
    path = directory / f"{test_set.image_sets[0]}.npz"
    if not (path.with_suffix(".csv").exists() and (directory / CLASS_NAMES).exists()):
        return _NOT_SAVED
    saved = Predictions.read(path)
    fingerprint = match_fingerprint(saved[0], result) if saved else None
    if saved is None or fingerprint is None:
        return _OTHER_RESULT
    try:
        predictions, space = scored_predictions(test_set, lambda _: saved[1])
    except InputError:  # none of the images is of the set's classes
        return _OTHER_RESULT
    best = predictions.classes[space][:, 0]
    top1 = np.mean(best == predictions.labels)
    if (len(predictions), top1) != (result.n, result.scores["top1"]):
        return _OTHER_RESULT
    names = [name.decode() for name in predictions.filenames.tolist()]
    files = json.dumps({"names": names, "labels": predictions.labels.tolist()}).encode()
    scores = _pack(best, predictions.confidence[space][:, 0], np.exp(-predictions.nll[space]))
    images = _Images(files, (directory / CLASS_NAMES).read_bytes())
    return _Saved(result.model, images, fingerprint, scores)


def _pack(classes: np.ndarray, confidence: np.ndarray, probability: np.ndarray) -> bytes:
    """Packs the scores of n images, one array after the other, little-endian.

    Args:
        classes: the predicted classes, int [n]; packed as 32 bits.
        confidence: their probabilities, float [n]; packed as 16 bits, 1 being 65535.
        probability: the probabilities of the labels, float [n]; packed likewise.
    """
    fractions = (np.rint(65535 * values).astype("<u2") for values in (confidence, probability))
    return b"".join(array.tobytes() for array in (classes.astype("<u4"), *fractions))
