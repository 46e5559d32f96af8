"""Checkpoints that describe themselves: `model.json` beside the weights says how to use them.

converted                       trained (a working directory of train.py)
├── model.json                  ├── model.json
├── weights/                    ├── best/<step>/weights/
└── weights.sha256              └── checkpoints/<step>/weights/, .../optimizer/
"""

import dataclasses
import hashlib
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax import nnx

from an_jax import functional, zoo
from an_jax.errors import InputError
from an_jax.files import absolute, check_destination, replacing, write_whole

CARD, WEIGHTS, STEPS, BEST = "model.json", "weights", "checkpoints", "best"
DIGEST = "weights.sha256"
# By what an epoch of a run is the best: accuracy by the images' own labels, and by ReaL's.
RANKINGS = {
    "val_top1": lambda metrics: metrics["val_top1"],
    "real_top1": lambda metrics: metrics.get("real_top1", 0.0),
}


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """What there is to know about a checkpoint besides its weights.

    Attributes:
        model: architecture, a name of the zoo.
        num_classes: number of logits.
        preprocessing: how images become inputs.
        source: where the weights came from; free-form, JSON.
    """

    model: str
    num_classes: int
    preprocessing: zoo.Preprocessing
    source: dict

    @classmethod
    def read(cls, checkpoint: str | os.PathLike) -> "ModelCard":
        """Reads CHECKPOINT/model.json. Raises InputError if it is none."""
        path = epath.Path(checkpoint)
        if not path.is_dir():
            raise InputError(f"no checkpoint at {path}: there is no such directory")
        if not (path / CARD).is_file():
            raise InputError(f"{path} is no checkpoint of this project: it has no {CARD}")
        try:
            fields = json.loads((path / CARD).read_text())
            values = fields["preprocessing"].items()
            values = {key: tuple(v) if isinstance(v, list) else v for key, v in values}
            fields["preprocessing"] = zoo.Preprocessing(**values)
            card = cls(**fields)
            zoo.get_architecture(card.model)
            if not (isinstance(card.num_classes, int) and isinstance(card.source, dict)):
                raise TypeError("num_classes must be an integer, source an object")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"{path / CARD} is damaged or of another version: {error}") from error
        return card

    def write(self, checkpoint: str | os.PathLike) -> None:
        """Writes CHECKPOINT/model.json."""
        text = json.dumps(dataclasses.asdict(self), indent=2) + "\n"
        write_whole(epath.Path(checkpoint) / CARD, text)


def is_checkpoint(path: str | os.PathLike) -> bool:
    """Whether `path` looks like a checkpoint of this project."""
    return (epath.Path(path) / CARD).is_file()


def load_model(path: str | os.PathLike, *, dtype=jnp.float32) -> nnx.Module:
    """The model of a converted checkpoint, or of a training run (its best step), in eval mode.

    Args:
        path: directory of the checkpoint; it knows its own architecture.
        dtype: compute dtype, float32 or bfloat16; logits are float32.

    Returns:
        A module that maps normalized images [N, H, W, 3] to logits [N, num_classes].

    Raises:
        InputError: no checkpoint there, or one that is damaged.
    """
    card = ModelCard.read(path)
    model = zoo.abstract_model(card.model, num_classes=card.num_classes, dtype=dtype)
    definition, params, batch_stats = functional.split(model)
    weights = restore_weights(path, params, batch_stats)
    model = functional.merge(definition, weights["params"], weights["batch_stats"])
    model.eval()
    return model


def restore_weights(path: str | os.PathLike, params, batch_stats) -> dict[str, functional.Arrays]:
    """Arrays {"params", "batch_stats"} of a checkpoint, onto this process's first device.

    Args:
        path: directory of the checkpoint.
        params, batch_stats: the shapes and dtypes expected (flat, as functional.split gives them).

    Raises:
        InputError: files are missing, damaged, or of other names or shapes.
    """
    directory = _weights_directory(absolute(path))
    expected = {"params": params, "batch_stats": batch_stats}
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        expected,
    )
    # What can be checked is checked first: a restore that fails midway leaves threads behind that
    # print errors, and changed bytes may load as other weights.
    _check_digests(directory)
    try:
        _check_shapes(expected, ocp.PyTreeCheckpointHandler().metadata(directory).tree)
        with ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(directory, target)
    except Exception as error:  # orbax and tensorstore raise many types for damaged files
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"the weights in {directory} cannot be read: {reason}") from error


def check_weights(path: str | os.PathLike) -> None:
    """Raises InputError if a checkpoint's files are not those that were written."""
    _check_digests(_weights_directory(absolute(path)))


def _check_shapes(expected, stored) -> None:
    for group, arrays in expected.items():
        shapes = {path: tuple(leaf.shape) for path, leaf in arrays.items()}
        found = {path: tuple(leaf.shape) for path, leaf in stored[group].items()}
        different = sorted(p for p in shapes | found if shapes.get(p) != found.get(p))
        if different:
            path = different[0]
            raise ValueError(
                f"{len(different)} arrays do not fit the model, such as {path}: "
                f"{found.get(path)}, expected {shapes.get(path)}"
            )


def _digests(weights: epath.Path) -> str:
    """A line a file, in the format of `sha256sum`."""
    files = sorted(directory / name for directory, _, names in weights.walk() for name in names)
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
            f"the files in {weights} are not those that were written (`sha256sum -c {DIGEST}` "
            "tells which): convert or copy it again"
        )


def save_checkpoint(
    path: str | os.PathLike, card: ModelCard, params, batch_stats, *, overwrite: bool = False
) -> None:
    """Writes a checkpoint whole or not at all: beside its destination, read back, then renamed.

    Raises:
        InputError: the destination exists and `overwrite` is not set, or it cannot be written.
    """
    arrays = {"params": params, "batch_stats": batch_stats}
    check_destination(path, overwrite=overwrite, holds=WEIGHTS)
    with replacing(path) as temporary:
        temporary.mkdir()
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(temporary / WEIGHTS, arrays)
        card.write(temporary)
        (temporary / DIGEST).write_text(_digests(epath.Path(temporary) / WEIGHTS))
        read = restore_weights(temporary, params, batch_stats)
        if not jax.tree.all(jax.tree.map(np.array_equal, arrays, read)):
            raise InputError(f"{path} was written but reads back differently: check the disk")


def best_step(workdir: epath.Path) -> int:
    """The step with the best val_top1 of a run. Raises InputError if none is saved."""
    options = ocp.CheckpointManagerOptions(best_fn=RANKINGS["val_top1"], create=False)
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
    return path / WEIGHTS
