"""Made-up results of all released models on all of ImageNet's test sets."""

import random

from an_jax.data.sets.image_sets import CORRUPTIONS
from an_jax.data.sets.test_sets import TEST_SETS
from an_jax.evaluation.result import Result
from an_jax.zoo.released import RELEASED


def made_up_results():
    """27 models x 13 test sets: the published accuracies, and random ones where there are none."""
    rng = random.Random(0)
    return [
        Result(
            model=model,
            architecture=released.architecture,
            dataset=dataset,
            n=test_set.num_images,
            expected=test_set.num_images,
            scores=_scores(rng, dataset, test_set, released.results.get(dataset)),
            num_params=round(released.params_m * 1e6),
            image_size=224,
            crop_pct=0.875,
            interpolation="bilinear",
            dtype="float32",
            weights_digest=f"{i:064x}",
            macs=rng.randrange(10**8, 10**10),
        )
        for i, (model, released) in enumerate(RELEASED.items())
        for dataset, test_set in TEST_SETS.items()
        if dataset.startswith("imagenet")
    ]


def _scores(rng, dataset, test_set, published):
    if dataset == "imagenet-p":
        return {"mean_flip_probability": rng.random() / 10, "mean_top5_distance": 1 + rng.random()}
    top1 = published[0] if published else 0.2 + 0.5 * rng.random()
    scores = {"top1": top1, "top5": min(1.0, top1 + 0.15)}
    if dataset == "imagenet-c":
        errors = {c: [0.3 + 0.1 * s + rng.random() / 20 for s in range(5)] for c in CORRUPTIONS}
        scores |= {"mce": 0.6 + rng.random() / 5, "relative_mce": 0.9, "errors": errors}
    if test_set.metric == "accuracy":
        confidence = [(i + 0.5) / 15 for i in range(15)]
        accuracy = [c * (1 - 0.2 * rng.random()) for c in confidence]
        scores |= {"nll": 1 + rng.random(), "rms_calibration_error": rng.random() / 10}
        scores["reliability"] = {"n": [100] * 15, "confidence": confidence, "accuracy": accuracy}
    return scores
