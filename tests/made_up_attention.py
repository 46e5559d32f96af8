"""Made-up files of `python -m an_jax.attention`, of a model with AN and one with BN."""

import json

import numpy as np

from an_jax.attention.capture import Recording
from an_jax.attention.layers import describe_layers, list_images

THUMBNAIL = (
    "data:image/webp;base64,UklGRnYAAABXRUJQVlA4IGoAAADQAQCdASoQABAAAgA0JaQAAq6o2GgIAAD+/SmrtgRPiXUGpWI7y"
    "/M3Tws3l/Ad/WRLiF3rb3KFCDemPgMQSrYf9IXmSzw//WyFNQ1yjctd1H4puK5xJO6FfIbfo7F0Tf0j9Q/rrLMl2AAA"
)
NUM_IMAGES = 30
NORMS = {"norm1": "BN", "layer1.0.norm1": 3, "layer2.0.norm1": 5}


def write_made_up(output_dir, class_names=("cat", "dog"), datasets=("digits",)):
    """Writes the files of the models "an" and "bn"; returns their paths."""
    rng = np.random.default_rng(0)
    labels = np.arange(NUM_IMAGES, dtype=np.int32) % 2
    lambdas = {
        path: np.float32(0.5 * rng.random((NUM_IMAGES, k)) + 0.3 * labels[:, None])
        for path, k in NORMS.items()
        if isinstance(k, int)
    }
    recording = Recording(lambdas, labels, [f"{i}.png" for i in range(NUM_IMAGES)])
    paths = []
    for model, norms in ("an", NORMS), ("bn", dict.fromkeys(NORMS, "BN")):
        params = {}
        for path, norm in norms.items():
            shape, name = ((norm, 4), "weight") if isinstance(norm, int) else ((4,), "scale")
            params[f"{path}.{name}"] = 1 + 0.1 * rng.standard_normal(shape)
            params[f"{path}.bias"] = 0.1 * rng.standard_normal(shape)
        layers = describe_layers(norms, params, recording if model == "an" else None)
        images = list_images(layers, recording, class_names)
        for dataset in datasets:
            analysis = {
                "model": model,
                "architecture": f"net_{model}",
                "weights_digest": "0123",
                "dataset": dataset,
                "num_images": NUM_IMAGES,
                "layers": layers,
                "images": [{**image, "thumbnail": THUMBNAIL} for image in images],
            }
            path = output_dir / "attention" / model / f"{dataset}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(analysis))
            paths.append(path)
    return paths
