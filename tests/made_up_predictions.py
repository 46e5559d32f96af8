"""Output directories of evaluate.py with made-up predictions."""

import json

import numpy as np
from etils import epath

from an_jax.evaluation.prediction_files import make_keys, predictions_directory
from an_jax.evaluation.predictions import ALL, Predictions
from an_jax.evaluation.result import Result
from an_jax.evaluation.results_file import to_json
from an_jax.evaluation.thumbnails import thumbnails_path
from an_jax.zoo import Preprocessing


def draw_scores(rng, labels, num_classes, accuracy):
    """Draws predicted classes, their probabilities, and the probabilities of the labels."""
    n = len(labels)
    is_right = rng.random(n) < accuracy
    near = np.where(rng.random(n) < 0.5, 1, rng.integers(1, num_classes, n))  # often confused
    predicted = np.where(is_right, labels, (labels + near) % num_classes)
    confidence = np.where(is_right, rng.beta(5, 1, n), rng.beta(2, 2, n))
    probability = np.where(is_right, confidence, (1 - confidence) * rng.random(n))
    return predicted, confidence, probability


def save_predictions(output_dir, dataset, names, labels, classes, scores):
    """Writes the predictions of models for a test set; returns their results.

    Args:
        output_dir: directory.
        dataset: test set with the metric "accuracy" and one image set of its name.
        names, labels: of the images.
        classes: names of the classes.
        scores: model -> the value of `draw_scores`.
    """
    results = []
    preprocessing = Preprocessing()
    for model, (predicted, confidence, probability) in scores.items():
        directory = predictions_directory(epath.Path(output_dir), model)
        directory.mkdir(parents=True, exist_ok=True)
        predictions = Predictions(
            np.array([name.encode() for name in names]),
            np.int32(labels),
            {ALL: np.int32(predicted)[:, None]},
            {ALL: np.float32(confidence)[:, None]},
            {ALL: -np.log(np.float32(probability))},
        )
        keys = make_keys(model, "resnet_50_bn", preprocessing, "float32", {dataset: "images"})
        predictions.save(directory / f"{dataset}.npz", keys[dataset])
        (directory / f"{dataset}.csv").touch()
        (directory / "classes.json").write_text(json.dumps(classes))
        top1 = float(np.mean(predicted == labels))
        results.append(
            Result(
                model=model,
                architecture="resnet_50_bn",
                dataset=dataset,
                n=len(labels),
                expected=len(labels),
                scores={"top1": top1, "top5": top1},
                num_params=25_557_032,
                image_size=preprocessing.image_size,
                crop_pct=preprocessing.crop_pct,
                interpolation=preprocessing.interpolation,
                dtype="float32",
                weights_digest=model,
            )
        )
    return results


def save_thumbnails(output_dir, dataset, root, uris):
    """Writes thumbnails: file name -> data URI."""
    path = thumbnails_path(epath.Path(output_dir), dataset)
    path.parent.mkdir(exist_ok=True)
    images = {name: {"rank": 0, "uri": uri} for name, uri in uris.items()}
    path.write_text(json.dumps({"root": root, "fingerprint": "images", "images": images}))


def write_results(output_dir, results):
    (epath.Path(output_dir) / "results.json").write_text(to_json(results))
