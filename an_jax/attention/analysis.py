"""Analyzes a model on test sets: runs it over the images and describes its layers."""

from collections.abc import Iterable, Iterator

from an_jax import functional, parallel
from an_jax.attention.capture import Recorder
from an_jax.attention.layers import Json, describe_layers, list_images, list_norms
from an_jax.attention.thumbnails import make_thumbnails
from an_jax.checkpoint import load_model
from an_jax.data.sets.test_sets import TEST_SETS
from an_jax.errors import InputError
from an_jax.evaluation.inputs import Inputs, Model
from an_jax.out_of_memory import explain_lack_of_memory


def has_attention(model: Model) -> bool:
    """Returns whether a model has AN layers."""
    return any(isinstance(norm, int) for norm in list_norms(model.card.model).values())


def check_datasets(names: Iterable[str]) -> None:
    """Raises InputError if a test set shares its images with another, or has several image sets."""
    for name in names:
        sets = TEST_SETS[name].image_sets if name in TEST_SETS else (name,)
        if sets != (name,):
            others = f" and {len(sets) - 1} other sets" if len(sets) > 1 else ""
            raise InputError(
                f"{name} takes its images from {sets[0]}{others}: choose --datasets with images of "
                "their own, such as imagenet-1k, or class folders (NAME=PATH)"
            )


def check_models(models: list[Model]) -> None:
    """Raises InputError if no model has AN."""
    if not any(map(has_attention, models)):
        names = ", ".join(f"{model.name} ({model.card.model})" for model in models)
        raise InputError(f"no AN layers in {names}: give the --checkpoint of a model with AN")


def analyze(model: Model, inputs: Inputs, batch_size: int) -> Iterator[Json]:
    """Analyzes a model on every test set.

    A model without AN is not run: its scale and shift are the same for all images.

    Args:
        model: one of the inputs.
        inputs: has the test sets; see `check_datasets`.
        batch_size: images of a step.

    Yields:
        The content of SET.json (docs/attention.md) for each test set.

    Raises:
        InputError: the checkpoint or an image is damaged, or mixture weights are NaN or infinite.
    """
    split = functional.split(load_model(model.path))
    digest = functional.digest(split.params | split.batch_stats)
    norms, is_attentive = list_norms(model.card.model), has_attention(model)
    recorder = Recorder(split, model.preprocessing, batch_size, parallel.make_mesh())
    for dataset, source in inputs.sources.items():
        if is_attentive:
            with explain_lack_of_memory("--batch_size", batch_size):
                recording = recorder(source, f"{model.name} on {dataset}")
            layers = describe_layers(norms, split.params, recording)
            images = list_images(layers, recording, model.card.class_names)
            positions = [image["position"] for image in images]
            thumbnails = make_thumbnails(source, positions, model.preprocessing)
            for image, thumbnail in zip(images, thumbnails, strict=True):
                image["thumbnail"] = thumbnail
        else:
            layers, images = describe_layers(norms, split.params, None), []
        yield {
            "model": model.name,
            "architecture": model.card.model,
            "weights_digest": digest,
            "dataset": dataset,
            "num_images": len(source),
            "layers": layers,
            "images": images,
        }
