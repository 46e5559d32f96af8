"""Predictions for a set of images: all that the metrics need."""

import csv
import dataclasses
import io
import zipfile
import zlib
from collections.abc import Collection
from typing import Any

import jax
import numpy as np
from etils import epath

from an_jax import parallel
from an_jax.data.sets.class_index import SUBSETS, subset
from an_jax.files import replacing

ALL = "all"  # label space of all classes


def label_spaces(num_classes: int) -> dict[str, np.ndarray]:
    """Returns the label spaces of a model: name -> labels to which logits are restricted."""
    spaces = {ALL: np.arange(num_classes)}
    if num_classes == 1000:
        spaces |= {name: np.array(subset(name)) for name in SUBSETS}
    return spaces


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Predictions for n images, in the order of their source.

    Attributes:
        filenames: bytes [n].
        labels: int32 [n].
        classes: label space -> its five most probable classes, best first; int32 [n, 5].
            A model of fewer than five classes has fewer columns.
        confidence: label space -> their softmax probabilities within the space; float32 [n, 5].
        nll: label space -> negative log-likelihood of the label within the space, in nats; float32
            [n]. Infinite if the label is not in the space.
    """

    filenames: np.ndarray
    labels: np.ndarray
    classes: dict[str, np.ndarray]
    confidence: dict[str, np.ndarray]
    nll: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, is_selected: np.ndarray) -> "Predictions":
        """Returns the images where `is_selected`, bool [n], is True."""
        return Predictions(
            self.filenames[is_selected],
            self.labels[is_selected],
            {space: values[is_selected] for space, values in self.classes.items()},
            {space: values[is_selected] for space, values in self.confidence.items()},
            {space: values[is_selected] for space, values in self.nll.items()},
        )

    def restrict(self, spaces: Collection[str]) -> "Predictions":
        """Drops all label spaces but `spaces`."""
        return dataclasses.replace(
            self,
            classes={space: values for space, values in self.classes.items() if space in spaces},
            confidence={s: values for s, values in self.confidence.items() if s in spaces},
            nll={space: values for space, values in self.nll.items() if space in spaces},
        )

    def save(self, path: epath.Path, key: str) -> None:
        """Writes a file that `load` accepts for the same key.

        Raises:
            InputError: the file cannot be written.
        """
        arrays: dict[str, Any] = {"filenames": self.filenames, "labels": self.labels}
        arrays |= {f"classes/{space}": values for space, values in self.classes.items()}
        arrays |= {f"confidence/{space}": values for space, values in self.confidence.items()}
        arrays |= {f"nll/{space}": values for space, values in self.nll.items()}
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, key=np.array(key), **arrays)

    @classmethod
    def load(cls, path: epath.Path, key: str) -> "Predictions | None":
        """Reads a file; returns None if it is missing or damaged, or has another key."""
        saved = cls.read(path)
        return saved[1] if saved and saved[0] == key else None

    @classmethod
    def read(cls, path: epath.Path) -> "tuple[str, Predictions] | None":
        """Reads a file and its key; returns None if it is missing or damaged."""
        try:
            with np.load(io.BytesIO(path.read_bytes())) as file:
                spaces = [n.removeprefix("classes/") for n in file if n.startswith("classes/")]
                return str(file["key"]), cls(
                    file["filenames"],
                    file["labels"],
                    {space: file[f"classes/{space}"] for space in spaces},
                    {space: file[f"confidence/{space}"] for space in spaces},
                    {space: file[f"nll/{space}"] for space in spaces},
                )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return None

    def write_csv(self, path: epath.Path, space: str) -> None:
        """Writes one row an image: file name, label, the five best classes, their probabilities.

        Args:
            path: path of the file.
            space: label space of the classes.

        Raises:
            InputError: the file cannot be written.
        """
        classes, confidence = self.classes[space], self.confidence[space]
        ranks = range(1, classes.shape[1] + 1)
        with (
            replacing(path) as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            header = [*(f"top{i}" for i in ranks), *(f"prob{i}" for i in ranks)]
            writer.writerow(["filename", "label", *header])
            columns = (self.filenames, self.labels, classes, confidence)
            for name, label, best, probabilities in zip(*columns, strict=True):
                cells = (f"{p:.6f}" for p in probabilities)
                writer.writerow([name.decode(), label, *best, *cells])


def gather(parts: list[Predictions], n: int) -> Predictions:
    """Joins this process's parts, and the processes' shares of n images, on every process."""

    def join(*arrays: np.ndarray) -> np.ndarray:
        return parallel.gather(np.concatenate(arrays), n)

    # `process_allgather` takes numeric arrays only, so file names are gathered as bytes.
    names = [np.asarray(part.filenames, np.bytes_) for part in parts]
    length = parallel.max_over_processes(max(array.dtype.itemsize for array in names))
    letters = [array.astype(f"S{length}").view(np.uint8).reshape(-1, length) for array in names]
    return Predictions(
        np.ascontiguousarray(join(*letters)).view(f"S{length}")[:, 0],
        join(*(part.labels for part in parts)),
        *jax.tree.map(join, *((part.classes, part.confidence, part.nll) for part in parts)),
    )
