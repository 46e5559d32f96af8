"""Checkpoints that describe themselves: `model.json` beside the weights names the model.

converted                trained (a working directory of train.py)
├── model.json           ├── model.json
├── weights/             ├── best/<step>/weights/
└── weights.sha256       └── checkpoints/<step>/weights/, .../optimizer/, .../ema/
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax import nnx
from jax.typing import DTypeLike

from an_jax import functional, zoo
from an_jax.buckets import check_bucket
from an_jax.data.sets.class_index import imagenet_names, imagenet_wnids
from an_jax.errors import InputError, one_line
from an_jax.files import (
    absolute,
    check_destination,
    is_remote,
    replacing,
    restore_interrupted,
    write_atomically,
)

CARD, WEIGHTS, EMA, STEPS, BEST = "model.json", "weights", "ema", "checkpoints", "best"
_COMMIT = "commit_success.txt"
DIGEST = "weights.sha256"
# The metrics that rank the epochs of a run: top-1 accuracy by the original and by ReaL labels.
RANKINGS: dict[str, Callable[[Mapping[str, float]], float]] = {
    "val_top1": lambda metrics: metrics["val_top1"],
    "real_top1": lambda metrics: metrics.get("real_top1", 0.0),
}


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """Describes a checkpoint's model and the origin of its weights.

    Attributes:
        model: name of the architecture in the zoo.
        num_classes: number of logits.
        preprocessing: turns images into inputs.
        source: the origin of the weights, free-form JSON.
    """

    model: str
    num_classes: int
    preprocessing: zoo.Preprocessing
    source: dict

    @property
    def class_names(self) -> Sequence[str]:
        """The names of the classes; their numbers if these are unknown."""
        if "classes" in self.source:
            return self.source["classes"]
        if self.num_classes == 1000:
            return imagenet_names()
        return [str(label) for label in range(self.num_classes)]

    @property
    def has_imagenet_classes(self) -> bool:
        """Whether the classes are ImageNet's, in their order."""
        return tuple(self.class_names) in (tuple(imagenet_names()), tuple(imagenet_wnids()))

    @classmethod
    def read(cls, checkpoint: str | os.PathLike) -> "ModelCard":
        """Reads model.json of a checkpoint, or of the run that a step belongs to.

        Raises:
            InputError: it is missing or invalid.
        """
        path = absolute(checkpoint)
        if not path.is_dir():
            restore_interrupted(path.parent)
        if not path.is_dir():
            raise InputError(f"no checkpoint at {path}: there is no such directory")
        file = _card_directory(path) / CARD
        if not file.is_file():
            raise InputError(f"{path} is not a checkpoint of this project: it has no {CARD}")
        try:
            fields = json.loads(file.read_text())
            values = fields["preprocessing"].items()
            values = {key: tuple(v) if isinstance(v, list) else v for key, v in values}
            fields["preprocessing"] = zoo.Preprocessing(**values)
            card = cls(**fields)
            zoo.get_architecture(card.model)
            if not (isinstance(card.num_classes, int) and isinstance(card.source, dict)):
                raise TypeError("num_classes must be an integer, source an object")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"{file} is damaged or of another version: {error}") from error
        return card

    def write(self, checkpoint: str | os.PathLike) -> None:
        """Writes CHECKPOINT/model.json."""
        text = json.dumps(dataclasses.asdict(self), indent=2) + "\n"
        write_atomically(epath.Path(checkpoint) / CARD, text)


def is_checkpoint(path: str | os.PathLike) -> bool:
    """Returns whether `path` looks like a complete checkpoint of this project."""
    given = absolute(path)
    directory = _card_directory(given)
    # In a bucket, which has no rename, orbax writes this file last.
    is_unfinished = directory != given and is_remote(given) and not (given / _COMMIT).exists()
    return (directory / CARD).is_file() and not is_unfinished


def checkpoint_name(path: epath.Path) -> str:
    """Returns the name of a checkpoint's directory; RUN-checkpoints-STEP for a step of a run."""
    is_step = _card_directory(path) != path
    return "-".join(epath.Path(os.path.normpath(path)).parts[-3 if is_step else -1 :])


def _card_directory(path: epath.Path) -> epath.Path:
    """Returns the directory of a checkpoint's model.json: for a step of a run, the run's."""
    is_step = path.name.isdecimal() and path.parent.name in (STEPS, BEST)
    return path.parent.parent if is_step and not (path / CARD).is_file() else path


def why_foreign(path: epath.Path) -> str | None:
    """Says why a path is not a converted checkpoint and nothing else. Returns None if it is one."""
    try:
        ModelCard.read(path)
    except InputError as error:
        return f"is not a converted checkpoint ({error})"
    others = sorted({entry.name for entry in path.iterdir()} - {CARD, WEIGHTS, DIGEST})
    return (
        f"also holds {', '.join(others[:3])}, which is not part of a checkpoint" if others else None
    )


def load_model(
    path: str | os.PathLike, *, with_classifier: bool = True, dtype: DTypeLike = jnp.float32
) -> nnx.Module:
    """Loads a converted checkpoint, or a step of a training run, as a model in eval mode.

    Args:
        path: directory of the checkpoint; of a training run, which stands for its best step; or of
            a step, RUN/checkpoints/STEP or RUN/best/STEP.
        with_classifier: False leaves the classifier out.
        dtype: compute dtype, float32 or bfloat16. Logits are float32.

    Returns:
        A module that maps normalized images [N, H, W, 3] to logits [N, num_classes], or without a
        classifier to pooled features [N, C].

    Raises:
        InputError: the checkpoint is missing or damaged.
    """
    check_bucket(path)
    card = ModelCard.read(path)
    model = zoo.abstract_model(card.model, num_classes=card.num_classes, dtype=dtype)
    definition, params, batch_stats = functional.split(model)
    weights = restore_weights(path, params, batch_stats)
    if not with_classifier:
        model = zoo.abstract_model(card.model, num_classes=0, dtype=dtype)
        definition, params, _ = functional.split(model)
    params = {name: weights["params"][name] for name in params}
    model = functional.merge(definition, params, weights["batch_stats"])
    model.eval()
    return model


def restore_weights(
    path: str | os.PathLike, params: functional.NamedArrays, batch_stats: functional.NamedArrays
) -> dict[str, functional.Arrays]:
    """Restores a checkpoint's weights onto this process's first device.

    Args:
        path: directory of the checkpoint.
        params, batch_stats: arrays of the expected names, shapes and dtypes, real or abstract.

    Returns:
        The arrays {"params", "batch_stats"}.

    Raises:
        InputError: files are missing or damaged, or the arrays have other names or shapes.
    """
    directory = _weights_directory(absolute(path))
    expected = {"params": params, "batch_stats": batch_stats}
    # Check before restoring, because changed bytes may load as other weights.
    _check_digests(directory)
    try:
        arrays = _read_arrays(directory, expected)
    except Exception as error:  # orbax and tensorstore raise many types for damaged files
        reason = one_line(error, limit=300)
        raise InputError(f"the weights in {directory} cannot be read: {reason}") from error
    return jax.device_put(arrays, jax.local_devices()[0])


def check_weights(path: str | os.PathLike) -> None:
    """Raises InputError if a checkpoint's weight files have changed since they were written."""
    _check_digests(_weights_directory(absolute(path)))


def _alone() -> ocp.options.MultiprocessingOptions:
    """Lets each process read by itself: it does not wait for one that has failed."""
    process = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=process,
        active_processes={process},
        barrier_sync_key_prefix=f"process_{process}",
    )


def _read_arrays(
    directory: epath.Path, expected: Mapping[str, functional.NamedArrays]
) -> dict[str, dict[str, np.ndarray]]:
    """Reads arrays of the expected names, shapes and dtypes; raises ValueError on others."""
    # Orbax takes twice as long for jax's arrays as for NumPy's.
    as_numpy = jax.tree.map(
        lambda leaf: ocp.RestoreArgs(restore_type=np.ndarray, dtype=leaf.dtype), expected
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=_alone())
    with ocp.Checkpointer(handler, multiprocessing_options=_alone()) as checkpointer:
        try:
            stored = checkpointer.restore(directory, ocp.args.PyTreeRestore(restore_args=as_numpy))
        except ValueError:  # other names, which orbax lists in full
            _check_shapes(expected, handler.metadata(directory).tree)
            raise
    _check_shapes(expected, stored)
    return stored


def _check_shapes(
    expected: Mapping[str, functional.NamedArrays],
    stored: Mapping[str, Mapping[str, np.ndarray | ocp.metadata.ArrayMetadata]],
) -> None:
    for group, arrays in expected.items():
        expected_shapes = {path: tuple(leaf.shape) for path, leaf in arrays.items()}
        stored_shapes = {path: tuple(leaf.shape) for path, leaf in stored[group].items()}
        paths = expected_shapes | stored_shapes
        different = sorted(p for p in paths if expected_shapes.get(p) != stored_shapes.get(p))
        if different:
            path = different[0]
            raise ValueError(
                f"{len(different)} arrays do not fit the model, such as {path}: "
                f"{stored_shapes.get(path)}, expected {expected_shapes.get(path)}"
            )


def _digests(weights: epath.Path) -> str:
    """Returns the digests of all files, in the format of `sha256sum`."""
    files = sorted(directory / name for directory, _, names in weights.walk() for name in names)
    # Not hashlib.file_digest: files opened in a bucket lack readinto.
    return "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(weights.parent)}\n"
        for path in files
    )


def _check_digests(weights: epath.Path) -> None:
    digests = weights.with_name(DIGEST)
    if not digests.is_file():
        return
    if not set(digests.read_text().splitlines()) <= set(_digests(weights).splitlines()):
        raise InputError(
            f"{weights}: files have changed since they were written (`sha256sum -c {DIGEST}` lists "
            "them). Convert or copy the checkpoint again"
        )


def save_checkpoint(
    path: str | os.PathLike,
    card: ModelCard,
    params: functional.NamedArrays,
    batch_stats: functional.NamedArrays,
    *,
    overwrite: bool = False,
) -> None:
    """Writes a checkpoint atomically.

    Writes it beside its destination, reads it back, compares, and then renames it, or copies it
    into the bucket, `model.json` last.

    Raises:
        InputError: the destination exists and `overwrite` is not set, or it cannot be written.
    """
    arrays = {"params": params, "batch_stats": batch_stats}
    check_destination(path, overwrite=overwrite, why_foreign=why_foreign)
    with replacing(path, last=CARD) as temporary:
        temporary.mkdir()
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(temporary / WEIGHTS, arrays)
        card.write(temporary)
        (temporary / DIGEST).write_text(_digests(temporary / WEIGHTS))
        read = restore_weights(temporary, params, batch_stats)
        if not jax.tree.all(jax.tree.map(np.array_equal, arrays, read)):
            raise InputError(f"{path} reads back differently from what was written; check the disk")
    check_weights(path)


def best_step(workdir: epath.Path) -> int:
    """Returns the step of a training run with the best val_top1.

    Raises:
        InputError: no step is saved yet.
    """
    options = ocp.CheckpointManagerOptions(
        best_fn=RANKINGS["val_top1"], create=False, multiprocessing_options=_alone()
    )
    step = None
    if (workdir / BEST).is_dir():
        with ocp.CheckpointManager(workdir / BEST, options=options) as manager:
            step = manager.best_step()
    if step is None:
        raise InputError(f"{workdir} holds no evaluated epoch yet: train longer")
    return step


def _weights_directory(path: epath.Path) -> epath.Path:
    if (path / STEPS).is_dir():
        return path / BEST / str(best_step(path)) / WEIGHTS
    averages = path / EMA  # the run's accuracies are those of the averages
    return averages if averages.is_dir() else path / WEIGHTS
