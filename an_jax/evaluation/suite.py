"""Models x test sets: what is needed is opened once, run over once, and kept when interrupted."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from an_jax import functional, parallel
from an_jax.checkpoint import ModelCard, check_weights, is_checkpoint, load_model
from an_jax.data.sets.alexnet_p import read_alexnet_p
from an_jax.data.sets.class_index import SUBSETS
from an_jax.data.sets.image_sets import IMAGE_SETS, Source, open_image_set
from an_jax.data.sets.real_labels import labels_of, read_real_labels
from an_jax.data.sets.test_sets import TEST_SETS, TestSet
from an_jax.data.sources import ImageList
from an_jax.errors import InputError, NotThereError
from an_jax.evaluation.columns import References, score
from an_jax.evaluation.evaluator import Evaluator
from an_jax.evaluation.predictions import ALL, Predictions
from an_jax.evaluation.result import Result
from an_jax.files import check_destination
from an_jax.zoo import Preprocessing

PREDICTIONS = "predictions"  # directory of what is kept, a file a model and image set
VERSION = 1  # of what predictions are made by: to be raised when these change


class Settings(NamedTuple):
    """What a suite is run with.

    Attributes:
        datasets: names in TEST_SETS.
        data_dir: where they lie; None for those that come with a package.
        output_dir: where predictions are kept.
        batch_size: images a step on all devices.
        dtype: compute dtype.
        preprocessing: what is changed of each checkpoint's.
        allow_partial: whether images may be missing.
        save_predictions: whether they are written as CSV too.
    """

    datasets: list[str]
    data_dir: str | None
    output_dir: Path
    batch_size: int
    dtype: str
    preprocessing: dict
    allow_partial: bool
    save_predictions: bool


class Suite:
    """The models and test sets of one command; whatever can be known to be wrong is said at once.

    Args:
        checkpoints: name -> directory.
        settings: see there.

    Raises:
        InputError: on every process, a checkpoint or a test set that is not there or does not fit,
            an output directory that cannot be written, or data that differ among the processes.
    """

    def __init__(self, checkpoints: dict[str, Path], settings: Settings):
        self._checkpoints, self._settings = checkpoints, settings
        self._test_sets = {name: TEST_SETS[name] for name in settings.datasets}
        self._sources: dict[str, Source] = {}
        error = None
        try:
            self._open()
        except InputError as found:
            error = found
        parallel.check_agreement(str([s.fingerprint for s in self._sources.values()]), error)
        parallel.on_main_process(self._make_output)

    def run(self) -> Iterator[list[Result]]:
        """Evaluates the models one after the other; yields each one's results, on the main process
        (on the others, empty lists).

        Raises:
            InputError: on every process; see Evaluator.
        """
        mesh = parallel.make_mesh()
        for name, path in self._checkpoints.items():
            preprocessing, dtype = self._preprocessings[name], self._settings.dtype
            split = functional.split(load_model(path, dtype=jnp.dtype(dtype)))
            evaluate = Evaluator(
                split.definition,
                self._cards[name].num_classes,
                preprocessing,
                self._settings.batch_size,
                mesh,
            )
            arrays = parallel.replicate((split.params, split.batch_stats), mesh)
            # Predictions are those of the same weights, settings and images, or of no use.
            of_model = [
                *(VERSION, _digest(split.params | split.batch_stats), self._cards[name].model),
                *(dataclasses.asdict(preprocessing), dtype),
            ]
            num_params = functional.count(split.params)
            results: dict[str, Result] = {}
            sets: dict[str, Predictions] = {}
            for image_set, source in self._sources.items():
                file = self._settings.output_dir / PREDICTIONS / name / f"{image_set}.npz"
                key = json.dumps([*of_model, source.fingerprint])
                found = parallel.on_main_process(functools.partial(Predictions.load, file, key))
                if not parallel.agree(found is not None):
                    found = evaluate(
                        *arrays,
                        source,
                        title=f"{name} on {image_set}",
                        is_cropped=IMAGE_SETS[image_set].is_cropped,
                    ).restrict(_spaces(image_set))
                    parallel.on_main_process(functools.partial(found.save, file, key))
                if parallel.is_main_process():
                    sets[image_set] = found
                parallel.on_main_process(
                    functools.partial(self._use, name, num_params, image_set, file, sets, results)
                )
            yield [results[dataset] for dataset in self._test_sets if dataset in results]

    def _use(self, name, num_params, image_set, file, sets, results) -> None:
        """Does what can be done as soon as an image set is there, and drops what has served."""
        if self._settings.save_predictions:
            space = image_set if image_set in SUBSETS else ALL
            sets[image_set].write_csv(file.with_suffix(".csv"), space)
        open_columns = [dataset for dataset in self._test_sets if dataset not in results]
        for dataset in open_columns:
            if sets.keys() >= {*self._needed(self._test_sets[dataset])}:
                results[dataset] = self._result(name, dataset, sets, num_params)
        needed = {
            image_set
            for dataset, test_set in self._test_sets.items()
            if dataset not in results
            for image_set in self._needed(test_set)
        }
        for served in sets.keys() - needed:
            del sets[served]

    def _result(self, name, dataset, sets: dict[str, Predictions], num_params) -> Result:
        test_set, preprocessing = self._test_sets[dataset], self._preprocessings[name]
        n, scores = score(test_set, sets, self._references)
        return Result(
            model=name,
            architecture=self._cards[name].model,
            dataset=dataset,
            n=n,
            expected=test_set.num_images,
            scores=scores,
            num_params=num_params,
            image_size=preprocessing.image_size,
            crop_pct=preprocessing.crop_pct,
            interpolation=preprocessing.interpolation,
            dtype=self._settings.dtype,
        )

    def _needed(self, test_set: TestSet) -> list[str]:
        """The image sets of a test set, without those optional ones that are not there."""
        optional = (name for name in test_set.optional_sets if name in self._sources)
        return [*test_set.image_sets, *optional]

    def _open(self) -> None:
        """Opens checkpoints and test sets, what is quick to check first."""
        settings = self._settings
        self._cards = {name: ModelCard.read(path) for name, path in self._checkpoints.items()}
        self._preprocessings: dict[str, Preprocessing] = {
            name: dataclasses.replace(card.preprocessing, **settings.preprocessing)
            for name, card in self._cards.items()
        }
        required = [name for t in self._test_sets.values() for name in t.image_sets]
        optional = [name for t in self._test_sets.values() for name in t.optional_sets]
        self._check_classes(required)
        metrics = {test_set.metric for test_set in self._test_sets.values()}
        if metrics & {"real", "perturbation"} and settings.data_dir is None:
            raise InputError("the test sets need --data_dir")
        self._references = References(
            real_labels=read_real_labels(settings.data_dir) if "real" in metrics else None,
            alexnet_p=read_alexnet_p(settings.data_dir) if "perturbation" in metrics else None,
        )
        names = list(dict.fromkeys([*required, *optional]))
        with ThreadPoolExecutor(8) as pool:  # on gs:// to list a set takes seconds
            sources = pool.map(functools.partial(self._open_one, optional=optional), names)
            self._sources = {n: s for n, s in zip(names, sources, strict=True) if s is not None}
        if self._references.real_labels and isinstance(self._sources["imagenet-1k"], ImageList):
            labels_of(self._sources["imagenet-1k"].filenames, self._references.real_labels)
        for path in self._checkpoints.values():
            check_weights(path)

    def _open_one(self, name: str, optional: list[str]) -> Source | None:
        try:
            return open_image_set(name, self._settings.data_dir, self._settings.allow_partial)
        except NotThereError:
            if name in optional:
                return None
            raise

    def _check_classes(self, image_sets: list[str]) -> None:
        for name, card in self._cards.items():
            for image_set in image_sets:
                expected = IMAGE_SETS[image_set].num_classes
                if card.num_classes != expected:
                    raise InputError(
                        f"{name} has {card.num_classes} classes, {image_set} has {expected}: "
                        "it cannot be evaluated there"
                    )

    def _make_output(self) -> None:
        """Raises InputError or OSError if the output cannot be written."""
        output_dir = self._settings.output_dir
        for name in ("results.md", "results.json"):
            check_destination(output_dir / name, overwrite=True)
        for name in self._checkpoints:
            directory = output_dir / PREDICTIONS / name
            try:
                directory.mkdir(parents=True, exist_ok=True)
                (directory / ".writable").touch()
                (directory / ".writable").unlink()
            except OSError as error:
                raise InputError(f"cannot write to {directory}: {error}") from error


def find_checkpoints(paths: list[Path]) -> dict[str, Path]:
    """Name -> directory of each checkpoint given, or found in a directory given.

    Raises:
        InputError: a path with no checkpoint, or two of the same name.
    """
    found: dict[str, Path] = {}
    for path in paths:
        children = sorted(path.iterdir()) if path.is_dir() else []
        inside = [c for c in children if is_checkpoint(c) and not c.name.startswith(".")]
        if is_checkpoint(path) or not inside:
            inside = [path]
            ModelCard.read(path)
        for checkpoint in inside:
            name = checkpoint.absolute().name
            if name in found:
                raise InputError(f"two checkpoints are named {name}: {found[name]}, {checkpoint}")
            found[name] = checkpoint
    return found


def _spaces(image_set: str) -> set[str]:
    """The label spaces in which some test set looks at an image set."""
    looking = [t for t in TEST_SETS.values() if image_set in t.image_sets]
    spaces = {t.classes for t in looking if t.classes}
    # As published, imagenet-o is seen through the classes of imagenet-a.
    return {ALL, *spaces, *(["imagenet-a"] if image_set == "imagenet-o" else [])}


def _digest(arrays: functional.Arrays) -> str:
    digest = hashlib.sha256()
    for path in sorted(arrays):
        digest.update(path.encode() + np.asarray(arrays[path]).tobytes())
    return digest.hexdigest()
