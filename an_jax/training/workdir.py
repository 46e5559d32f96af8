"""The working directory of a run: its configuration, model card and metrics, one line an epoch."""

import json
from pathlib import Path

import ml_collections

from an_jax.checkpoint import STEPS, ModelCard, is_checkpoint
from an_jax.destination import replacing
from an_jax.errors import InputError
from an_jax.training.curves import METRICS, read_metrics

CONFIG = "config.json"


def open_workdir(workdir: Path, config: ml_collections.ConfigDict, card: ModelCard) -> None:
    """Makes the directory, or checks that the run in it is this one.

    Raises:
        InputError: it holds something else, or cannot be written.
    """
    ours = json.loads(config.to_json())
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if not (workdir / CONFIG).exists() and is_checkpoint(workdir):
            raise InputError(f"{workdir} holds a checkpoint, not a run; choose another --workdir")
        if any((workdir / STEPS).glob("[0-9]*")):
            theirs = json.loads((workdir / CONFIG).read_text())
            differing = [k for k in ours | theirs if ours.get(k) != theirs.get(k)]
            if differing:
                changes = ", ".join(f"{k} {theirs.get(k)} -> {ours.get(k)}" for k in differing)
                raise InputError(
                    f"{workdir} holds a run of another configuration ({changes}); "
                    "choose another --workdir"
                )
            return
        card.write(workdir)
        (workdir / CONFIG).write_text(json.dumps(ours, indent=2) + "\n")
    except OSError as error:
        raise InputError(f"cannot write to {workdir}: {error}") from error


def append_metrics(workdir: Path, metrics: dict) -> None:
    """Adds a line to metrics.jsonl."""
    with (workdir / METRICS).open("a") as file:
        file.write(json.dumps(metrics) + "\n")


def drop_metrics_after(workdir: Path, step: int) -> None:
    """Removes the lines of epochs that a resumed run is going to do again."""
    if (workdir / METRICS).exists():
        kept = [epoch for epoch in read_metrics(workdir) if epoch["step"] <= step]
        with replacing(workdir / METRICS) as temporary:
            temporary.write_text("".join(json.dumps(epoch) + "\n" for epoch in kept))
