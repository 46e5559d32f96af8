"""Describes normalization layers and their mixture weights, as JSON."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from an_jax import functional
from an_jax.attention import statistics
from an_jax.attention.capture import Recording
from an_jax.zoo.cost import summarize

IMAGES_PER_COMPONENT = 5
MAX_IMAGES = 1000  # of a model; with more components each has fewer images
Norms = dict[str, int | str]
Json = dict[str, Any]


@functools.cache  # tracing a model takes up to two seconds
def list_norms(architecture: str) -> Norms:
    """Returns path -> AN's number of components, "BN" or "GN", in order of the forward pass."""
    return {path: norm for part in summarize(architecture) for path, norm in part.norms.items()}


def attentive_layers(analysis: Json) -> list[Json]:
    """Returns the AN layers of an analysis (see `analysis.analyze`)."""
    return [layer for layer in analysis["layers"] if layer["norm"] == "AN"]


def format_title(analysis: Json) -> str:
    """Returns the title of a table or picture."""
    return f"{analysis['model']} on {analysis['dataset']} ({analysis['num_images']:,} images)"


def select_layers(analysis: Json, layers: Sequence[Json]) -> list[Json]:
    """Returns the layers of `analysis` with the names of `layers`, in the order of `layers`."""
    by_name = {layer["name"]: layer for layer in analysis["layers"]}
    return [by_name[layer["name"]] for layer in layers]


def describe_layers(
    norms: Norms, params: functional.NamedArrays, recording: Recording | None
) -> list[Json]:
    """Describes each norm.

    Args:
        norms: see `list_norms`.
        params: path -> AN's `weight` and `bias` [K, C], BN's `scale` and `bias` [C].
        recording: the mixture weights; None for a model without AN.

    Returns:
        The elements of "layers" in docs/attention.md.
    """
    num_components = sum(norm for norm in norms.values() if isinstance(norm, int))
    layers = []
    for path, norm in norms.items():
        if isinstance(norm, int):
            assert recording is not None
            lambdas = recording.lambdas[path]
            scale, shift = params[f"{path}.weight"], params[f"{path}.bias"]
            per_component = max(1, min(IMAGES_PER_COMPONENT, MAX_IMAGES // num_components))
            mixture = describe_mixture(lambdas, recording.labels, per_component)
        else:
            lambdas = np.ones((1, 1))
            scale, shift = params[f"{path}.scale"][None], params[f"{path}.bias"][None]
            mixture = {}
        layers.append(
            {
                "name": path,
                "norm": "AN" if mixture else norm,
                "num_channels": scale.shape[1],
                "scale": statistics.affine_spread(lambdas, np.asarray(scale))._asdict(),
                "shift": statistics.affine_spread(lambdas, np.asarray(shift))._asdict(),
                **mixture,
            }
        )
    return _rounded(layers)


def describe_mixture(lambdas: np.ndarray, labels: np.ndarray, num_images: int) -> Json:
    """Describes the mixture weights of a layer.

    Args:
        lambdas: [N, K].
        labels: [N].
        num_images: how many images to list for each component.
    """
    values = lambdas.astype(np.float64)
    means, stds = values.mean(axis=0), values.std(axis=0)
    eta_squared, epsilon_squared = statistics.variance_explained(lambdas, labels)
    components = [
        {
            "mean": mean,
            "std": std,
            "images": [{"position": int(i), "lambda": float(lambdas[i, k])} for i in images],
        }
        for k, (mean, std, images) in enumerate(
            zip(means, stds, statistics.find_top_images(lambdas, num_images), strict=True)
        )
    ]
    return {
        "in_use": float(statistics.effective_number(means)),
        "in_use_per_image": float(statistics.effective_number(lambdas).mean()),
        "eta_squared": eta_squared,
        "epsilon_squared": epsilon_squared,
        "components": components,
    }


def list_images(layers: list[Json], recording: Recording, class_names: Sequence[str]) -> list[Json]:
    """Returns the images that the components list, in the order of the set, without pictures."""
    components = [component for layer in layers for component in layer.get("components", ())]
    positions = {image["position"] for component in components for image in component["images"]}
    return [
        {
            "position": i,
            "filename": recording.filenames[i],
            "label": int(recording.labels[i]),
            "class": class_names[recording.labels[i]],
        }
        for i in sorted(positions)
    ]


def _rounded(value: Any) -> Any:
    """Rounds the numbers in a JSON value to six digits."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [*map(_rounded, value)] if isinstance(value, list) else value
