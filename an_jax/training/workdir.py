"""The working directory of a run: its configuration and model card."""

import json

import ml_collections
from etils import epath

from an_jax.checkpoint import CARD, STEPS, ModelCard
from an_jax.errors import InputError
from an_jax.files import write_whole

CONFIG = "config.json"
# What a resumed run may have otherwise: where it runs and what is seen of it.
CHANGEABLE = {
    "data_dir",
    "bn_group_size",
    "eval_batch_size",
    "log_steps",
    "checkpoint_steps",
    "keep_checkpoints",
    "profile_steps",
}


def open_workdir(workdir: epath.Path, config: ml_collections.ConfigDict, card: ModelCard) -> None:
    """Makes the directory, or checks that the run in it is this one, on the same data.

    Raises:
        InputError: it holds something else, or cannot be written.
    """
    ours = json.loads(config.to_json())
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if not (workdir / CONFIG).exists() and (workdir / CARD).exists():
            raise InputError(f"{workdir} holds a checkpoint, not a run; choose another --workdir")
        if any((workdir / STEPS).glob("[0-9]*")):
            _check_same(workdir, ours, card)
        write_whole(workdir / CONFIG, json.dumps(ours, indent=2) + "\n")
        card.write(workdir)
    except json.JSONDecodeError as error:
        raise InputError(f"{workdir / CONFIG} is damaged: {error}") from error
    except OSError as error:
        raise InputError(f"cannot write to {workdir}: {error}") from error


def _check_same(workdir: epath.Path, ours: dict, card: ModelCard) -> None:
    theirs = json.loads((workdir / CONFIG).read_text())
    differing = [k for k in ours | theirs if ours.get(k) != theirs.get(k)]
    if set(differing) - CHANGEABLE:
        changes = ", ".join(f"{k} {theirs.get(k)} -> {ours.get(k)}" for k in differing)
        raise InputError(
            f"{workdir} holds a run of another configuration ({changes}); choose another --workdir"
        )
    if ModelCard.read(workdir) != card:
        raise InputError(
            f"{workdir} holds a run on other data: the number of images or the classes are not "
            f"those in its {CARD}; choose another --workdir"
        )
