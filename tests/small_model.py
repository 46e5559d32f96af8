"""A small model with random weights, and its predictions with NumPy and Pillow preprocessing."""

import functools

import jax.numpy as jnp
import numpy as np

from an_jax import functional, zoo
from an_jax.checkpoint import ModelCard, load_model, save_checkpoint
from tests import pictures

NAME = "resnet_20_bn"
CARD = ModelCard(NAME, 1000, zoo.get_architecture(NAME).preprocessing, {})


@functools.cache
def random_split(num_classes=1000, seed=0, name=NAME):
    """Draws all weights; with their initial ones the blocks are the identity."""
    split = functional.split(zoo.abstract_model(name, num_classes=num_classes))
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        values = rng.standard_normal(leaf.shape, np.float32)
        if path.endswith("kernel"):
            return values * np.sqrt(2 / np.prod(leaf.shape[:-1]))
        return 0.1 * values + path.endswith((".scale", ".var"))

    params, batch_stats = (
        {path: np.float32(draw(path, leaf)) for path, leaf in arrays.items()}
        for arrays in (split.params, split.batch_stats)
    )
    return functional.Split(split.definition, params, batch_stats)


def save(path, card=CARD, **changes):
    split = random_split(card.num_classes, name=card.model)
    save_checkpoint(path, card, split.params | changes, split.batch_stats)
    return path


def softmax_of(checkpoint, images, preprocessing=CARD.preprocessing):
    """Probabilities [N, C] of images that Pillow and NumPy prepare."""
    size = preprocessing.image_size
    resized = int(size / preprocessing.crop_pct)
    pixels = [
        pictures.resize_and_center_crop(image, resized, size, preprocessing.interpolation)
        for image in images
    ]
    inputs = (np.stack(pixels) / 255 - preprocessing.mean) / preprocessing.std
    model = load_model(checkpoint)
    # Batches of one size, since every size is compiled.
    inputs = np.pad(np.float32(inputs), ((0, -len(inputs) % 32), (0, 0), (0, 0), (0, 0)))
    batches = [np.asarray(model(jnp.asarray(b))) for b in np.split(inputs, len(inputs) // 32)]
    logits = np.concatenate(batches)[: len(pixels)].astype(np.float64)
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exp / exp.sum(axis=1, keepdims=True)
