"""The predictions of a model on disk: one file an image set, so that a run can resume."""

import dataclasses
import json
from collections.abc import Mapping, Sequence

from etils import epath

from an_jax.data.sets.class_index import SUBSETS
from an_jax.data.sets.test_sets import TEST_SETS
from an_jax.errors import InputError
from an_jax.evaluation.predictions import ALL, Predictions
from an_jax.evaluation.result import Result
from an_jax.files import replacing
from an_jax.zoo import Preprocessing

CLASS_NAMES = "classes.json"  # beside the predictions: a list, the name of each label
VERSION = 1  # increment when a code change alters predictions for the same inputs


def predictions_directory(output_dir: epath.Path, model: str) -> epath.Path:
    """Returns the directory of a model's predictions."""
    return output_dir / "predictions" / model


@dataclasses.dataclass(frozen=True)
class PredictionFiles:
    """The predictions of one model.

    A file is valid only for identical weights, settings and images. Its key identifies them.

    Attributes:
        directory: directory of the files.
        keys: image set -> key.
    """

    directory: epath.Path
    keys: Mapping[str, str]

    def find(self, image_set: str) -> Predictions | None:
        """Returns the predictions, or None if there is no valid file."""
        return Predictions.load(self._path(image_set), self.keys[image_set])

    def load(self, image_set: str) -> Predictions:
        """Returns the predictions.

        Raises:
            InputError: there is no valid file.
        """
        predictions = self.find(image_set)
        if predictions is None:
            path = self._path(image_set)
            raise InputError(f"{path} was changed or removed during the evaluation; run it again")
        return predictions

    def save(self, image_set: str, predictions: Predictions) -> None:
        """Writes the label spaces that test sets use. Raises InputError if that fails."""
        used = predictions.restrict(_label_spaces(image_set))
        used.save(self._path(image_set), self.keys[image_set])

    def write_csv(self, image_set: str) -> None:
        """Writes saved predictions as CSV beside their file. Raises InputError if that fails."""
        space = image_set if image_set in SUBSETS else ALL
        self.load(image_set).write_csv(self._path(image_set).with_suffix(".csv"), space)

    def write_class_names(self, names: Sequence[str]) -> None:
        """Writes the name of each label. Raises InputError if that fails."""
        with replacing(self.directory / CLASS_NAMES) as path:
            path.write_text(json.dumps([*names]))

    def _path(self, image_set: str) -> epath.Path:
        return self.directory / f"{image_set}.npz"


def make_keys(
    weights_digest: str,
    architecture: str,
    preprocessing: Preprocessing,
    dtype: str,
    fingerprints: Mapping[str, str],
) -> dict[str, str]:
    """Identifies a model's predictions for each image set.

    Args:
        weights_digest: of the parameters and running statistics.
        architecture: name in the zoo.
        preprocessing: size, crop, interpolation and normalization.
        dtype: compute dtype.
        fingerprints: image set -> fingerprint of its source.

    Returns:
        Image set -> key.
    """
    model = [VERSION, weights_digest, architecture, dataclasses.asdict(preprocessing), dtype]
    return {name: json.dumps([*model, images]) for name, images in fingerprints.items()}


def match_fingerprint(key: str, result: Result) -> str | None:
    """Returns the image fingerprint in a key, or None if the key is not that of `result`.

    Args:
        key: from `make_keys`, of any version.
        result: must have the same weights, architecture, preprocessing and dtype.
    """
    version, *model, images = json.loads(key)
    if version != VERSION:
        return None
    digest, architecture, preprocessing, dtype = model
    fields = ("image_size", "crop_pct", "interpolation")
    actual = [digest, architecture, dtype, *(preprocessing[field] for field in fields)]
    expected = [result.weights_digest, result.architecture, result.dtype]
    expected += [getattr(result, field) for field in fields]
    return images if actual == expected else None


def _label_spaces(image_set: str) -> set[str]:
    """Returns the label spaces in which test sets score an image set."""
    spaces = {t.classes for t in TEST_SETS.values() if image_set in t.image_sets and t.classes}
    if image_set == "imagenet-o":
        spaces.add("imagenet-a")  # the published imagenet-o accuracies use its classes
    return {ALL, *spaces}
