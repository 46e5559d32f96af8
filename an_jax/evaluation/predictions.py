"""What a model says of a set of images: all that the metrics need, kept in one file."""

import csv
import dataclasses
import zipfile
from pathlib import Path

import numpy as np

from an_jax.data.class_index import SUBSETS, subset
from an_jax.destination import replacing

ALL = "all"  # the label space of all classes


def label_spaces(num_classes: int) -> dict[str, np.ndarray]:
    """Name -> labels of each set of classes to which logits are restricted, `ALL` first."""
    spaces = {ALL: np.arange(num_classes)}
    if num_classes == 1000:
        spaces |= {name: np.array(subset(name)) for name in SUBSETS}
    return spaces


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Of n images, in the order of their source.

    Attributes:
        filenames: [n] bytes.
        labels: int32 [n].
        classes: label space -> the five most probable of its classes, best first; int32 [n, 5].
        confidence: label space -> softmax probabilities of these among its logits; float32 [n, 5].
    """

    filenames: np.ndarray
    labels: np.ndarray
    classes: dict[str, np.ndarray]
    confidence: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, kept: np.ndarray) -> "Predictions":
        """Those of the images where `kept` [n] is True."""
        return Predictions(
            self.filenames[kept],
            self.labels[kept],
            {space: values[kept] for space, values in self.classes.items()},
            {space: values[kept] for space, values in self.confidence.items()},
        )


def save(path: Path, predictions: Predictions, key: str) -> None:
    """Writes a file that `load` gives back for the same key.

    Raises:
        InputError: it cannot be written.
    """
    arrays = {"filenames": predictions.filenames, "labels": predictions.labels}
    arrays |= {f"classes/{space}": values for space, values in predictions.classes.items()}
    arrays |= {f"confidence/{space}": values for space, values in predictions.confidence.items()}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, key=np.array(key), **arrays)


def load(path: Path, key: str) -> Predictions | None:
    """What was saved for this key; None if nothing was, or another key's, or a damaged file."""
    try:
        with path.open("rb") as opened, np.load(opened) as file:
            if file["key"] != key:
                return None
            spaces = [name.removeprefix("classes/") for name in file if name.startswith("classes/")]
            return Predictions(
                file["filenames"],
                file["labels"],
                {space: file[f"classes/{space}"] for space in spaces},
                {space: file[f"confidence/{space}"] for space in spaces},
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def write_csv(path: Path, predictions: Predictions, space: str) -> None:
    """A row an image: file name, label, the five best classes of a label space, probabilities."""
    classes, confidence = predictions.classes[space], predictions.confidence[space]
    ranks = range(1, classes.shape[1] + 1)
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        header = [*(f"top{i}" for i in ranks), *(f"prob{i}" for i in ranks)]
        writer.writerow(["filename", "label", *header])
        columns = (predictions.filenames, predictions.labels, classes, confidence)
        for name, label, best, probabilities in zip(*columns, strict=True):
            writer.writerow([name.decode(), label, *best, *(f"{p:.6f}" for p in probabilities)])
