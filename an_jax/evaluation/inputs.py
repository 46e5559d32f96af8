"""Opens and checks everything an evaluation needs before the first model runs."""

import dataclasses
import functools
import json
from collections.abc import Iterable
from typing import Any

from etils import epath

from an_jax import parallel
from an_jax.checkpoint import ModelCard, check_weights, checkpoint_name, is_checkpoint
from an_jax.data.folders import check_data_directory
from an_jax.data.sets.image_sets import IMAGE_SETS
from an_jax.data.sets.opening import Source
from an_jax.data.sets.own_sets import open_own_set
from an_jax.data.sets.test_sets import TEST_SETS, TestSet, own_test_set
from an_jax.errors import InputError, check_utf8
from an_jax.evaluation.opening import open_test_sets
from an_jax.evaluation.output import check_output
from an_jax.evaluation.prediction_files import predictions_directory
from an_jax.evaluation.published import check_comparable
from an_jax.evaluation.scoring import References
from an_jax.files import make_directory, restore_interrupted
from an_jax.zoo import Preprocessing


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of an evaluation.

    Attributes:
        datasets: names in TEST_SETS and in `own_folders`.
        own_folders: name -> directory of custom class folders.
        data_dir: directory of the test sets; None if they come with a package.
        output_dir: directory of the results and predictions.
        batch_size: global batch size.
        dtype: compute dtype.
        preprocessing: overrides of the checkpoints' preprocessing.
        allow_partial: whether images may be missing.
        save_predictions: whether to write predictions as CSV too.
        compare_published: whether a model and a test set must have published results.
    """

    datasets: list[str]
    own_folders: dict[str, str]
    data_dir: str | None
    output_dir: epath.Path
    batch_size: int
    dtype: str
    preprocessing: dict[str, Any]
    allow_partial: bool
    save_predictions: bool
    compare_published: bool


@dataclasses.dataclass(frozen=True)
class Model:
    """A checkpoint to evaluate.

    Attributes:
        name: name in the results.
        path: directory of the checkpoint.
        card: the checkpoint's model card.
        preprocessing: the card's preprocessing with the settings' overrides.
    """

    name: str
    path: epath.Path
    card: ModelCard
    preprocessing: Preprocessing


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Checked inputs of an evaluation.

    Attributes:
        models: the checkpoints.
        test_sets: name -> test set; its `optional_sets` are only those found.
        sources: image set -> source, for every image set of the test sets.
        references: what the metrics need besides predictions.
    """

    models: list[Model]
    test_sets: dict[str, TestSet]
    sources: dict[str, Source]
    references: References


def find_checkpoints(paths: list[epath.Path]) -> dict[str, epath.Path]:
    """Finds the checkpoints at the paths or directly inside them.

    Returns:
        Name -> directory.

    Raises:
        InputError: a path holds no checkpoint, two checkpoints have the same name, or a name is not
            UTF-8.
    """
    checkpoints: dict[str, epath.Path] = {}
    for path in paths:
        restore_interrupted(path)
        children = sorted(path.iterdir()) if path.is_dir() else []
        inside = [c for c in children if is_checkpoint(c) and not c.name.startswith(".")]
        if is_checkpoint(path) or not inside:
            inside = [path]
            ModelCard.read(path)
        for checkpoint in inside:
            name = checkpoint_name(checkpoint)
            if name in checkpoints:
                raise InputError(
                    f"two checkpoints are named {name}: {checkpoints[name]} and {checkpoint}; "
                    "rename one"
                )
            checkpoints[name] = checkpoint
    check_utf8(checkpoints)
    return checkpoints


def open_inputs(paths: list[epath.Path], settings: Settings) -> Inputs:
    """Opens the checkpoints and test sets and prepares the output directory.

    Args:
        paths: directories of checkpoints; see `find_checkpoints`.
        settings: settings of the evaluation.

    Raises:
        InputError: on every process: see `read_inputs`; or the output directory holds other files
            or cannot be written.
    """
    inputs = read_inputs(paths, settings)
    names = [model.name for model in inputs.models]
    parallel.on_main_process(functools.partial(_make_output, names, settings.output_dir))
    return inputs


def read_inputs(paths: list[epath.Path], settings: Settings) -> Inputs:
    """Opens the checkpoints and test sets.

    Args:
        paths, settings: as for `open_inputs`.

    Raises:
        InputError: on every process, if a checkpoint or test set is missing or invalid, or the
            processes have different settings, checkpoints or data.
    """
    with parallel.failing_together():
        models = _open_models(paths, settings)
    open_sets = functools.partial(_open_test_sets, models, settings)
    test_sets, sources, references = parallel.from_main_process(open_sets)
    with parallel.failing_together():
        for model in models:
            check_weights(model.path)
    inputs = Inputs(models, test_sets, sources, references)
    parallel.check_agreement(_fingerprints(settings, inputs))
    return inputs


def _fingerprints(settings: Settings, inputs: Inputs) -> dict[str, str]:
    """Identifies everything that decides the results but the weights, which are compared later."""
    flags = ("datasets", "batch_size", "dtype", "allow_partial", "save_predictions")
    fingerprints = {f"--{name}": str(getattr(settings, name)) for name in flags}
    fingerprints |= {f"--{name}": str(value) for name, value in settings.preprocessing.items()}
    fingerprints["list of checkpoints"] = json.dumps([model.name for model in inputs.models])
    for model in inputs.models:
        preprocessing = dataclasses.asdict(model.preprocessing)
        decisive = [model.card.model, model.card.num_classes, preprocessing]
        fingerprints[f"model.json of {model.name}"] = json.dumps(decisive)
    for name, source in inputs.sources.items():
        fingerprints[f"images of {name}"] = source.fingerprint
    return fingerprints


def _open_models(paths: list[epath.Path], settings: Settings) -> list[Model]:
    """Finds the checkpoints and reads their cards, but not yet the weights."""
    checkpoints = find_checkpoints(paths)
    if settings.compare_published:
        check_comparable(checkpoints, settings.datasets)
    models = []
    for name, path in checkpoints.items():
        card = ModelCard.read(path)
        preprocessing = dataclasses.replace(card.preprocessing, **settings.preprocessing)
        models.append(Model(name, path, card, preprocessing))
    _check_classes(models, _known_test_sets(settings))
    return models


def _known_test_sets(settings: Settings) -> dict[str, TestSet]:
    return {name: TEST_SETS[name] for name in settings.datasets if name in TEST_SETS}


def _open_test_sets(
    models: list[Model], settings: Settings
) -> tuple[dict[str, TestSet], dict[str, Source], References]:
    """Opens all image sets. Returns the test sets too, each with the optional sets that exist."""
    own_sources = _open_own_sets(models, settings.own_folders)
    if settings.data_dir is not None:
        check_data_directory(settings.data_dir)
    test_sets = _known_test_sets(settings)
    sources, references = open_test_sets(test_sets, settings.data_dir, settings.allow_partial)
    sources |= own_sources
    test_sets |= {name: own_test_set(name, len(source)) for name, source in own_sources.items()}
    test_sets = {
        name: dataclasses.replace(
            test_sets[name],
            optional_sets=tuple(s for s in test_sets[name].optional_sets if s in sources),
        )
        for name in settings.datasets
    }
    return test_sets, sources, references


def _check_classes(models: list[Model], test_sets: dict[str, TestSet]) -> None:
    for model in models:
        for image_set in (name for t in test_sets.values() for name in t.image_sets):
            expected = IMAGE_SETS[image_set].num_classes
            advice = (
                "choose other --datasets (NAME=PATH for class folders of your own) or another "
                "--checkpoint"
            )
            if model.card.num_classes != expected:
                raise InputError(
                    f"{model.name} has {model.card.num_classes} classes, {image_set} has "
                    f"{expected}: {advice}"
                )
            if expected == 1000 and not model.card.has_imagenet_classes:
                raise InputError(
                    f"{model.name} has classes of its own, {image_set} has ImageNet's: {advice}"
                )


def _open_own_sets(models: list[Model], folders: dict[str, str]) -> dict[str, Source]:
    """Opens the custom class folders and reports how many classes have none."""
    if not folders:
        return {}
    class_names = models[0].card.class_names
    for model in models:
        if [*model.card.class_names] != [*class_names]:
            raise InputError(
                f"{models[0].name} and {model.name} have different classes: evaluate them on "
                f"{', '.join(folders)} one after the other, with the same --output_dir"
            )
    sources: dict[str, Source] = {}
    for name, root in folders.items():
        source = open_own_set(root, class_names)
        num_missing = len(class_names) - len(set(source.labels.tolist()))
        if num_missing:
            print(f"note: {name}: {num_missing} of the {len(class_names)} classes have no folder")
        sources[name] = source
    return sources


def _make_output(models: Iterable[str], output_dir: epath.Path) -> None:
    """Raises InputError if the output cannot be written or would replace other files."""
    check_output(output_dir)
    for name in models:
        make_directory(predictions_directory(output_dir, name))
