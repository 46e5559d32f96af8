"""The training log on the terminal, printed by process 0."""

import sys
from logging import getLogger

import ml_collections
from etils import epath
from tqdm import tqdm

from an_jax import parallel
from an_jax.checkpoint import ModelCard
from an_jax.errors import advise
from an_jax.training.norm_groups import NormGroups


def say(text: str) -> None:
    """Prints a line above the progress bar, on process 0."""
    if parallel.is_main_process():
        tqdm.write(text)


def how_to_resume(error: Exception) -> str:
    """Says what to do after an error of a file system that has ended the run."""
    advice, again = advise(error), "run the same command again to resume"
    return f"{advice}, then {again}" if advice else again


def silence_failed_saves() -> None:
    """Silences the loggers and callbacks that print a traceback for each array of a failed save.

    The save raises the error as well. All other loggers still print their warnings.
    """
    for name in ("absl", "asyncio"):  # orbax logs as absl
        getLogger(name).setLevel("CRITICAL")
    report = sys.unraisablehook

    def report_others(unraisable: "sys.UnraisableHookArgs") -> None:
        if str(unraisable.exc_value) != "Event loop is closed":  # tensorstore, after the save
            report(unraisable)

    sys.unraisablehook = report_others


def describe_run(
    config: ml_collections.ConfigDict,
    card: ModelCard,
    *,
    num_params: int,
    devices: str,
    groups: NormGroups,
    steps_per_epoch: int,
    first_step: int,
) -> str:
    """Returns the first line of the training log.

    Args:
        config: the configuration.
        card: the model's card.
        num_params: number of trained values.
        devices: the devices and processes, as `describe_devices` returns them.
        groups: the images that share statistics.
        steps_per_epoch: updates in an epoch.
        first_step: updates made before this start of the run; above 0 if it resumes.
    """
    line = (
        f"{config.model}: {num_params / 1e6:.3f} M parameters; "
        f"{card.source['num_images']} images of {config.dataset}, {card.num_classes} classes; "
        f"{config.num_epochs} epochs of {steps_per_epoch} steps of {config.batch_size} images on "
        f"{devices}; {groups.describe()}"
    )
    if groups.num_images < config.norm_batch_size:
        line += f" (a batch has fewer than norm_batch_size, {config.norm_batch_size})"
    return f"{line}; resuming after step {first_step}" if first_step else line


def describe_epoch(metrics: dict, num_epochs: int, minutes_left: float) -> str:
    """Returns the line about an epoch; `metrics` are those of `log.epoch_metrics`."""
    parts = [f"epoch {metrics['epoch']:3d}/{num_epochs}"]
    if "loss" in metrics:  # unknown if the run lost its log
        parts.append(f"loss {metrics['loss']:.4f}")
        parts.append(f"train top-1 {100 * metrics['train_top1']:.1f} %")
    parts.append(f"val top-1 {100 * metrics['val_top1']:.1f} %")
    if "plain_val_top1" in metrics:
        parts[-1] += f" ({100 * metrics['plain_val_top1']:.1f} % without averaging)"
    if "real_top1" in metrics:
        parts.append(f"ReaL {100 * metrics['real_top1']:.1f} %")
    parts += [
        f"{name.removesuffix('/top1')} {100 * value:.1f} %"
        for name, value in metrics.items()
        if name.endswith("/top1")
    ]
    parts += [f"{metrics['images_per_second']:.0f} img/s", f"{minutes_left:.1f} min left"]
    if metrics["skipped"]:
        parts.append(f"{metrics['skipped']} images skipped")
    return "  ".join(parts)


def describe_best(epochs: list[dict], workdir: epath.Path) -> str:
    """Returns the last line: the best epoch, and how to load its weights."""
    best = max(epochs, key=lambda line: (line["val_top1"], line["step"]))
    return (
        f"best val top-1 {100 * best['val_top1']:.1f} % in epoch {best['epoch']}; "
        f"an_jax.load_model({str(workdir)!r}) gives that model"
    )
