"""The accuracy that watches over a training: on its validation images, after each epoch."""

from an_jax import functional
from an_jax.checkpoint import ModelCard
from an_jax.data.sets.real_labels import labels_of
from an_jax.data.sets.train_sets import TrainSet
from an_jax.evaluation.evaluator import Evaluator
from an_jax.evaluation.metrics import real_accuracy, top_k_accuracy
from an_jax.evaluation.predictions import ALL


class Validation:
    """Scores weights on a training set's validation images; compiled once.

    Args:
        definition: the model's static part.
        card: of the model.
        train_set: has the images, and ReaL's labels where they are there.
        batch_size: images a step over all devices.
        mesh: the devices, of all processes.
    """

    def __init__(self, definition, card: ModelCard, train_set: TrainSet, batch_size: int, mesh):
        self._source, self._real_labels = train_set.val_source, train_set.real_labels
        self._evaluator = Evaluator(
            definition, card.num_classes, card.preprocessing, batch_size, mesh
        )

    def __call__(
        self, params: functional.Arrays, batch_stats: functional.Arrays
    ) -> dict[str, float]:
        """val_top1 and val_top5, and real_top1 and real_top5 by ReaL's labels; in [0, 1].

        Raises:
            InputError: an image that cannot be decoded, or logits that are no numbers.
        """
        predictions = self._evaluator(params, batch_stats, self._source, title="val", nested=True)
        classes = predictions.classes[ALL]
        scores = {f"val_top{k}": top_k_accuracy(classes, predictions.labels, k) for k in (1, 5)}
        if self._real_labels:
            names = [name.decode() for name in predictions.filenames]
            labels = labels_of(names, self._real_labels)
            scores |= {f"real_top{k}": real_accuracy(classes, labels, k)[0] for k in (1, 5)}
        return scores
