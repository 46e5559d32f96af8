"""The working directory of a run: its configuration and model card."""

import dataclasses
import json

import ml_collections
from etils import epath

from an_jax.checkpoint import BEST, CARD, STEPS, ModelCard
from an_jax.errors import InputError, file_errors, with_advice
from an_jax.files import find_entries, write_atomically
from an_jax.training.config import default_config
from an_jax.training.log_files import EPOCHS, PARTS
from an_jax.training.log_files import STEPS as LOG_STEPS

CONFIG = "config.json"
_OWN_FIELDS = {"model", "dataset", "num_epochs"}  # of every configuration
# What a run writes besides CONFIG and CARD.
_CURVES = ("curves.html", "curves.png")
_WRITTEN = (EPOCHS, LOG_STEPS, PARTS, "tensorboard", *_CURVES, "profile", STEPS, BEST)
# A resumed run may change these: they do not change the result.
CHANGEABLE = {
    "data_dir",
    "bn_group_size",  # of older runs; norm_batch_size took its place
    "eval_batch_size",
    "eval_sets",
    "eval_sets_epochs",
    "log_steps",
    "checkpoint_steps",
    "keep_checkpoints",
    "profile_steps",
}


def open_workdir(workdir: epath.Path, config: ml_collections.ConfigDict, card: ModelCard) -> None:
    """Fills a new directory, or checks that its run has the same configuration and data.

    Raises:
        InputError: the directory holds something else, or cannot be written.
    """
    fields = json.loads(config.to_json())
    try:
        _check_foreign(workdir)
        if find_entries(workdir / STEPS, "[0-9]*"):
            _check_same_run(workdir, fields, card)
        write_atomically(workdir / CONFIG, json.dumps(fields, indent=2) + "\n")
        card.write(workdir)
    except json.JSONDecodeError as error:
        raise InputError(f"{workdir / CONFIG} is damaged: {error}") from error
    except file_errors() as error:
        raise InputError(f"cannot write to {workdir}: {with_advice(error)}") from error


def _check_foreign(workdir: epath.Path) -> None:
    """Raises InputError if a run would replace or change files of another origin."""
    if (workdir / CONFIG).exists():
        fields = json.loads((workdir / CONFIG).read_text())
        if not isinstance(fields, dict) or not fields.keys() >= _OWN_FIELDS:
            raise InputError(
                f"{workdir / CONFIG} is not the configuration of a training run; choose another "
                "--workdir"
            )
        return
    if (workdir / CARD).exists():
        raise InputError(
            f"{workdir} holds a checkpoint, not a training run; choose another --workdir"
        )
    for name in _WRITTEN:
        if (workdir / name).exists():
            raise InputError(
                f"{workdir} has a {name} but no {CONFIG}, so it may be no training run; choose "
                f"another --workdir, or copy the run's {CONFIG} there"
            )


def _check_same_run(workdir: epath.Path, new: dict, card: ModelCard) -> None:
    # Fields that are newer than the run have their defaults, which do what older versions did.
    defaults = json.loads(default_config().to_json())
    defaults["norm_batch_size"] = new["norm_batch_size"]  # older runs had it from their devices
    old = defaults | json.loads((workdir / CONFIG).read_text())
    changed = [key for key in new | old if new.get(key) != old.get(key)]
    if set(changed) - CHANGEABLE:
        changes = ", ".join(f"{key} {old.get(key)} -> {new.get(key)}" for key in changed)
        raise InputError(
            f"{workdir} holds a run of another configuration ({changes}); choose another --workdir"
        )
    old_card = ModelCard.read(workdir)
    if dataclasses.replace(old_card, source=card.source | old_card.source) != card:
        raise InputError(
            f"{workdir} holds a run on other data: the number of images or the classes differ from "
            f"its {CARD}; choose another --workdir"
        )
