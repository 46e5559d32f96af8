"""The accuracy on the validation images and further test sets, measured after each epoch."""

import functools

import jax
from flax import nnx

from an_jax import functional
from an_jax.checkpoint import ModelCard
from an_jax.data.sets.image_sets import IMAGE_SETS
from an_jax.data.sets.real_labels import match_labels
from an_jax.data.sets.train_sets import TrainSet
from an_jax.errors import InputError
from an_jax.evaluation.evaluator import Evaluator
from an_jax.evaluation.metrics import real_accuracy, top_accuracies
from an_jax.evaluation.predictions import ALL, Predictions
from an_jax.training.eval_sets import NO_EVAL_SETS, EvalSets, compute_scores
from an_jax.training.messages import say
from an_jax.training.step import TrainState


class Validation:
    """Scores weights on the validation images of a training set and on test sets; compiles once.

    Args:
        definition: the model's static part.
        card: the model's card.
        train_set: has the validation images, and ReaL's labels where there are any.
        batch_size: global batch size.
        mesh: the devices of all processes.
        eval_sets: further test sets.
    """

    def __init__(
        self,
        definition: nnx.GraphDef,
        card: ModelCard,
        train_set: TrainSet,
        batch_size: int,
        mesh: jax.sharding.Mesh,
        eval_sets: EvalSets = NO_EVAL_SETS,
    ):
        self._eval_sets = eval_sets
        self._source, self._real_labels = train_set.val_source, train_set.real_labels
        self._evaluator = Evaluator(
            definition, card.num_classes, card.preprocessing, batch_size, mesh
        )

    def __call__(self, state: TrainState, epoch: int) -> dict[str, float]:
        """Scores the weights after an epoch, from 1.

        Returns:
            val_top1 and val_top5; with ReaL's labels also real_top1 and real_top5. If there are
            moving averages, these scores are theirs, and "plain_val_top1" etc. are those of the
            weights themselves. Scores of further test sets have names such as "imagenet-a/top1".

        Raises:
            InputError: an image cannot be decoded, or logits are NaN or infinite.
        """
        plain = {"params": state.params, "batch_stats": state.batch_stats}
        weights = state.ema or plain
        scores = self._score(**weights)
        if state.ema:
            scores |= {f"plain_{name}": value for name, value in self._score(**plain).items()}
        if epoch in self._eval_sets.epochs:
            # Test sets share image sets. All of ImageNet-C and -P would fill the memory.
            predict = functools.lru_cache(2)(functools.partial(self._predict, weights))
            try:
                scores |= compute_scores(self._eval_sets, predict)
            except InputError as error:  # the same on all processes
                say(f"warning: eval_sets are not scored after epoch {epoch}: {error}")
        return scores

    def _predict(self, weights: dict[str, functional.Arrays], image_set: str) -> Predictions:
        return self._evaluator(
            **weights,
            source=self._eval_sets.sources[image_set],
            title=image_set,
            is_cropped=IMAGE_SETS[image_set].is_cropped,
            nested=True,
        )

    def _score(self, params: functional.Arrays, batch_stats: functional.Arrays) -> dict[str, float]:
        predictions = self._evaluator(params, batch_stats, self._source, title="val", nested=True)
        classes = predictions.classes[ALL]
        accuracies = top_accuracies(classes, predictions.labels)
        scores = {f"val_{name}": accuracy for name, accuracy in accuracies.items()}
        if self._real_labels:
            names = [name.decode() for name in predictions.filenames]
            labels = match_labels(names, self._real_labels)
            scores |= {f"real_top{k}": real_accuracy(classes, labels, k)[0] for k in (1, 5)}
        return scores
