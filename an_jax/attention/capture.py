"""Records the mixture weights of a model's AN layers over a set of images."""

import functools
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from an_jax import functional, parallel
from an_jax.data.eval_pipeline import eval_batches
from an_jax.data.images.normalization import normalize_images
from an_jax.data.sets.opening import Source
from an_jax.errors import InputError
from an_jax.nn import AttentiveNorm
from an_jax.progress import progress_bar
from an_jax.zoo import Preprocessing


class Recording(NamedTuple):
    """Mixture weights of all images of a set.

    Attributes:
        lambdas: path of an AN layer -> its mixture weights, float32 [N, K].
        labels: int32 [N].
        filenames: N names relative to the set's directory.
    """

    lambdas: dict[str, np.ndarray]
    labels: np.ndarray
    filenames: list[str]


def mixture_weights(
    definition: nnx.GraphDef,
    params: functional.Arrays,
    batch_stats: functional.Arrays,
    images: jax.Array,
) -> dict[str, jax.Array]:
    """Returns the mixture weights lambda of every AN layer in eval mode.

    Args:
        definition, params, batch_stats: the model.
        images: normalized images [N, H, W, 3].

    Returns:
        Path of the layer -> [N, K], at least float32.
    """
    model = functional.merge(definition, params, batch_stats)
    model.eval()
    lambdas: dict[str, jax.Array] = {}
    for path, module in nnx.iter_modules(model):
        if isinstance(module, AttentiveNorm):
            name = ".".join(map(str, path))
            module.attention.append(functools.partial(_store, lambdas, name))
    model(images)
    return lambdas


def _store(lambdas: dict[str, jax.Array], name: str, attention: jax.Array) -> jax.Array:
    lambdas[name] = attention
    return attention


class Recorder:
    """Records a model's mixture weights; the model is compiled once for all sets.

    Args:
        model: the model, with its weights.
        preprocessing: size, crop, interpolation and normalization.
        batch_size: images of a step, rounded up to a multiple of the number of devices.
        mesh: the devices of this process.
    """

    def __init__(
        self, model: functional.Split, preprocessing: Preprocessing, batch_size: int, mesh: Mesh
    ):
        self._preprocessing, self._mesh = preprocessing, mesh
        self._batch_size = -(-batch_size // mesh.size) * mesh.size
        self._arrays = parallel.replicate((model.params, model.batch_stats), mesh)

        def step(
            params: functional.Arrays, batch_stats: functional.Arrays, images: jax.Array
        ) -> dict[str, jax.Array]:
            images = normalize_images(images, preprocessing)
            return mixture_weights(model.definition, params, batch_stats, images)

        self._step = jax.jit(step, out_shardings=parallel.batched(mesh))

    def __call__(self, source: Source, title: str) -> Recording:
        """Runs over a set of images.

        Args:
            source: the images.
            title: label of the progress bar.

        Raises:
            InputError: an image cannot be decoded, or its weights are NaN or infinite.
        """
        parts: list[dict[str, np.ndarray]] = []
        labels, filenames = [], []
        share = range(len(source))
        batches = eval_batches(source, share, self._batch_size, self._preprocessing)
        with progress_bar(len(source), title) as progress:
            for batch in batches:
                images, mask = parallel.shard_batch(batch["image"], self._mesh), batch["mask"]
                lambdas = jax.device_get(self._step(*self._arrays, images))
                parts.append({name: values[mask] for name, values in lambdas.items()})
                labels.append(batch["label"][mask])
                filenames += [name.decode() for name in batch["filename"][mask]]
                progress.update(int(mask.sum()))
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        for name, values in joined.items():
            if not np.isfinite(values).all():
                raise InputError(
                    f"{title}: the mixture weights of {name} are NaN or infinite; the checkpoint's "
                    "weights do not fit these inputs"
                )
        return Recording(joined, np.concatenate(labels), filenames)
