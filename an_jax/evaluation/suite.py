"""Models x test sets: what is needed is opened once, run over once, and kept when interrupted."""

import argparse
import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from an_jax import functional, parallel
from an_jax.checkpoint import ModelCard, is_checkpoint, load_model
from an_jax.data.alexnet_p import read_alexnet_p
from an_jax.data.image_sets import IMAGE_SETS, open_image_set
from an_jax.data.real_labels import read_real_labels
from an_jax.data.test_sets import TEST_SETS, expand_names
from an_jax.errors import InputError
from an_jax.evaluation import predictions as saved
from an_jax.evaluation.columns import References, score
from an_jax.evaluation.evaluator import Evaluator
from an_jax.evaluation.predictions import ALL, Predictions
from an_jax.evaluation.report import Result
from an_jax.zoo import Preprocessing

PREDICTIONS = "predictions"  # directory of what is kept, a file a model and image set


class Suite:
    """The models and test sets of one command; whatever can be wrong with them is said at once.

    Args:
        args: the command line of evaluate.py.
        checkpoints: name -> directory.

    Raises:
        InputError: a checkpoint or a test set that is not there or does not fit, or an output
            directory that cannot be written.
    """

    def __init__(self, args: argparse.Namespace, checkpoints: dict[str, Path]):
        self._args, self._checkpoints = args, checkpoints
        self._test_sets = {name: TEST_SETS[name] for name in expand_names(args.datasets)}
        needed = (name for test_set in self._test_sets.values() for name in test_set.image_sets)
        self._sources = {
            name: open_image_set(name, args.data_dir, args.allow_partial)
            for name in dict.fromkeys(needed)
        }
        metrics = {test_set.metric for test_set in self._test_sets.values()}
        self._references = References(
            real_labels=read_real_labels(args.data_dir) if "real" in metrics else None,
            alexnet_p=read_alexnet_p(args.data_dir) if "perturbation" in metrics else None,
        )
        self._cards = {name: ModelCard.read(path) for name, path in checkpoints.items()}
        self._preprocessings = {
            name: self._preprocessing_of(card) for name, card in self._cards.items()
        }
        self._check_classes()
        if parallel.is_main_process():
            _make_directory(args.output_dir)

    def run(self) -> Iterator[list[Result]]:
        """Evaluates the models one after the other; the main process yields each one's results.

        Raises:
            InputError: see Evaluator.
        """
        mesh = parallel.make_mesh()
        for name, path in self._checkpoints.items():
            card, preprocessing = self._cards[name], self._preprocessings[name]
            split = functional.split(load_model(path, dtype=jnp.dtype(self._args.dtype)))
            evaluate = Evaluator(
                split.definition, card.num_classes, preprocessing, self._args.batch_size, mesh
            )
            arrays = parallel.replicate((split.params, split.batch_stats), mesh)
            weights = _digest(split.params | split.batch_stats)
            sets = {}
            for image_set, source in self._sources.items():
                key = self._key(weights, card, preprocessing, source.fingerprint)
                file = self._args.output_dir / PREDICTIONS / name / f"{image_set}.npz"
                kept = saved.load(file, key) if parallel.is_main_process() else None
                if parallel.agree(kept is not None):
                    sets[image_set] = kept
                else:
                    sets[image_set] = evaluate(
                        *arrays,
                        source,
                        title=f"{name} on {image_set}",
                        is_cropped=IMAGE_SETS[image_set].is_cropped,
                    )
                    if parallel.is_main_process():
                        saved.save(file, sets[image_set], key)
                if self._args.save_predictions and parallel.is_main_process():
                    saved.write_csv(file.with_suffix(".csv"), sets[image_set], ALL)
            if parallel.is_main_process():
                num_params = functional.count(split.params)
                yield [self._result(name, column, sets, num_params) for column in self._test_sets]

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
            dtype=self._args.dtype,
        )

    def _key(self, weights, card, preprocessing, fingerprint) -> str:
        """Predictions are those of the same weights, settings and images, or of no use."""
        parts = [weights, card.model, dataclasses.asdict(preprocessing), self._args.dtype]
        return hashlib.sha256(json.dumps([*parts, fingerprint]).encode()).hexdigest()

    def _preprocessing_of(self, card) -> Preprocessing:
        """The checkpoint's, with the command line's changes."""
        fields = ("image_size", "crop_pct", "interpolation")
        given = {field: getattr(self._args, field) for field in fields}
        changed = {field: value for field, value in given.items() if value is not None}
        return dataclasses.replace(card.preprocessing, **changed)

    def _check_classes(self):
        for name, card in self._cards.items():
            for image_set in self._sources:
                expected = IMAGE_SETS[image_set].num_classes
                if card.num_classes != expected:
                    raise InputError(
                        f"{name} has {card.num_classes} classes, {image_set} has {expected}: "
                        "it cannot be evaluated there"
                    )


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


def _digest(arrays: functional.Arrays) -> str:
    digest = hashlib.sha256()
    for path in sorted(arrays):
        digest.update(path.encode() + np.asarray(arrays[path]).tobytes())
    return digest.hexdigest()


def _make_directory(path: Path) -> None:
    """Raises InputError if nothing can be written there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / ".writable").touch()
        (path / ".writable").unlink()
    except OSError as error:
        raise InputError(f"cannot write to {path}: {error}") from error
