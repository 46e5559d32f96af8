"""A trained model with its preprocessing and class names, for pictures of one's own."""

import io
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
import PIL.Image
from flax import nnx

from an_jax import functional
from an_jax.checkpoint import ModelCard, load_model
from an_jax.data.eval_pipeline import eval_batches
from an_jax.data.images.normalization import normalize_images
from an_jax.data.sources import ImageList
from an_jax.errors import InputError, check_utf8, file_errors, with_advice
from an_jax.files import absolute

Picture = str | os.PathLike | np.ndarray | PIL.Image.Image


class Prediction(NamedTuple):
    """A class that a model predicts.

    Attributes:
        label: number of the class.
        name: its name; the number if the checkpoint has no names.
        probability: softmax probability.
    """

    label: int
    name: str
    probability: float


class ImageClassifier:
    """Predicts the classes of pictures; compiles the model once.

    Args:
        model: in evaluation mode.
        card: describes it.
        batch_size: pictures that the model sees at a time.

    Attributes:
        names: the classes' names.
        preprocessing: size, crop, interpolation and normalization.
    """

    def __init__(self, model: nnx.Module, card: ModelCard, batch_size: int):
        self.names = card.class_names
        self.preprocessing = card.preprocessing
        self._batch_size = batch_size
        definition, *self._weights = functional.split(model)

        @jax.jit
        def predict(
            params: functional.Arrays, batch_stats: functional.Arrays, images: jax.Array
        ) -> jax.Array:
            images = normalize_images(images, card.preprocessing)
            return jax.nn.softmax(functional.apply_eval(definition, params, batch_stats, images))

        self._predict = predict

    def __call__(self, pictures: Sequence[Picture], k: int = 5) -> list[list[Prediction]]:
        """Returns the k most probable classes of each picture, best first.

        Args:
            pictures: paths (may be gs://), uint8 arrays [H, W, 3], or PIL images.
            k: number of classes; at most all.

        Raises:
            InputError: a picture cannot be read.
        """
        results = []
        for images, num_pictures in self._batches(pictures):
            for row in np.asarray(self._predict(*self._weights, images))[:num_pictures]:
                best = np.argsort(-row, kind="stable")[:k]
                results.append([Prediction(int(i), self.names[i], float(row[i])) for i in best])
        return results

    def preprocess(self, pictures: Sequence[Picture]) -> np.ndarray:
        """Returns the pictures resized and cropped as in evaluation, uint8 [N, S, S, 3]."""
        size = self.preprocessing.image_size
        batches = [images[:n] for images, n in self._batches(pictures)]
        return np.concatenate([np.zeros((0, size, size, 3), np.uint8), *batches])

    def _batches(self, pictures: Sequence[Picture]) -> Iterator[tuple[np.ndarray, int]]:
        """Yields batches of preprocessed images, padded to the same size, and their numbers."""
        if not pictures:
            return
        names = [_name(picture, i) for i, picture in enumerate(pictures)]
        check_utf8(names)
        encoded = list(map(_encode, pictures, names))
        source = ImageList(names, np.zeros(len(names), np.int32), encoded=encoded)
        everything = range(len(source))
        for batch in eval_batches(source, everything, self._batch_size, self.preprocessing):
            yield batch["image"], int(batch["mask"].sum())


def load_classifier(path: str | os.PathLike, *, batch_size: int = 32) -> ImageClassifier:
    """Loads a checkpoint, or a step of a training run, as a classifier of pictures.

    Args:
        path: directory of the checkpoint, run or step, as for `load_model`; may be gs://.
        batch_size: pictures that the model sees at a time.

    Raises:
        InputError: the checkpoint is missing or damaged.
    """
    return ImageClassifier(load_model(path), ModelCard.read(path), batch_size)


def _name(picture: Picture, position: int) -> str:
    return os.fspath(picture) if isinstance(picture, (str, os.PathLike)) else f"picture {position}"


def _encode(picture: Picture, name: str) -> bytes:
    """Returns the contents of a file, or of a PNG of the pixels."""
    if isinstance(picture, (str, os.PathLike)):
        try:
            return absolute(picture).read_bytes()
        except file_errors() as error:
            raise InputError(f"{name} cannot be read: {with_advice(error)}") from error
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] != 3:
            raise InputError(
                f"{name} is {picture.dtype} {list(picture.shape)}: expected uint8 [H, W, 3]"
            )
        picture = PIL.Image.fromarray(picture)
    content = io.BytesIO()
    try:
        picture.convert("RGB").save(content, format="PNG")
    except OSError as error:  # Pillow decodes late
        raise InputError(f"{name} cannot be decoded: {error}") from error
    return content.getvalue()
