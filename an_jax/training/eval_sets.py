"""Test sets that are scored while training, besides the validation images."""

import dataclasses
import os
from collections.abc import Callable, Collection

import ml_collections

from an_jax.checkpoint import ModelCard
from an_jax.data.sets.image_sets import IMAGE_SETS
from an_jax.data.sets.opening import Source
from an_jax.data.sets.test_sets import TEST_SETS, TestSet, expand_names
from an_jax.errors import InputError
from an_jax.evaluation.opening import open_test_sets
from an_jax.evaluation.predictions import Predictions
from an_jax.evaluation.scoring import References, score
from an_jax.training.messages import say


@dataclasses.dataclass(frozen=True)
class EvalSets:
    """Test sets to score while training.

    Attributes:
        test_sets: name -> test set.
        sources: image set -> source, for every image set of the test sets.
        references: what the metrics need besides predictions.
        epochs: the epochs, from 1, after which they are scored.
    """

    test_sets: dict[str, TestSet]
    sources: dict[str, Source]
    references: References
    epochs: Collection[int]


NO_EVAL_SETS = EvalSets({}, {}, References(None, None), ())


def open_eval_sets(config: ml_collections.ConfigDict, card: ModelCard) -> EvalSets:
    """Opens the test sets of a configuration; missing images are reported.

    Args:
        config: the configuration.
        card: the model's card.

    Raises:
        InputError: a test set is unknown, absent or of other classes.
    """
    if not config.eval_sets:
        return NO_EVAL_SETS
    names = expand_names(config.eval_sets)
    # Optional sets do not contribute to scalar scores.
    test_sets = {name: dataclasses.replace(TEST_SETS[name], optional_sets=()) for name in names}
    for name, test_set in test_sets.items():
        expected = IMAGE_SETS[test_set.image_sets[0]].num_classes
        if card.num_classes != expected:
            raise InputError(
                f"eval_sets: {name} has {expected} classes, the model has {card.num_classes}"
            )
        if expected == 1000 and not card.has_imagenet_classes:
            raise InputError(f"eval_sets: {name} has ImageNet's classes, the model has its own")
    data_dir = os.path.expanduser(config.data_dir) or None
    sources, references = open_test_sets(test_sets, data_dir, allow_partial=True)
    for name, source in sources.items():
        if len(source) != IMAGE_SETS[name].num_images:
            say(f"note: {len(source)} of the {IMAGE_SETS[name].num_images} images of {name}")
    every, last = config.eval_sets_epochs, config.num_epochs
    return EvalSets(test_sets, sources, references, {*range(every, last, every), last})


def compute_scores(eval_sets: EvalSets, predict: Callable[[str], Predictions]) -> dict[str, float]:
    """Returns the scalar scores by names such as "imagenet-a/top1".

    Args:
        eval_sets: the test sets.
        predict: returns the predictions for an image set.

    Raises:
        InputError: see `scoring.score`.
    """
    return {
        f"{name}/{key}": value
        for name, test_set in eval_sets.test_sets.items()
        for key, value in score(test_set, predict, eval_sets.references)[1].items()
        if isinstance(value, float)
    }
