"""The training logs of runs as columns, and how their configurations differ, for a page."""

import json
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from etils import epath

from an_jax.errors import InputError
from an_jax.files import find_entries
from an_jax.training.config import default_config
from an_jax.training.log import MEANS
from an_jax.training.log_files import EPOCHS, PARTS, STEPS, read_lines
from an_jax.training.workdir import CONFIG

MAX_POINTS = 2000  # in a column about steps
# Column about steps -> field of steps.jsonl. The columns are named as those about epochs.
_STEP_COLUMNS = MEANS | {key: key for key in ("learning_rate", "images_per_second")}

Column = list[float | None]


def read_metrics(workdir: epath.Path) -> list[dict]:
    """Returns a dictionary for each finished epoch of a run. Raises InputError if there is none."""
    path = workdir / EPOCHS
    lines = read_lines(path) if path.is_file() else []
    if not lines:
        raise InputError(
            f"{workdir} is not a training run with a finished epoch: it has no {EPOCHS}"
        )
    return lines


def collect(workdirs: list[epath.Path]) -> dict:
    """Returns the page's data as a JSON value.

    Raises:
        InputError: a directory is not a training run with a finished epoch, or its configuration
            is damaged.
    """
    workdirs = list(dict.fromkeys(workdirs))
    names = [workdir.name for workdir in workdirs]
    if len(set(names)) < len(names):
        names = [str(workdir) for workdir in workdirs]
    configs = [_read_config(workdir) for workdir in workdirs]
    return {
        "runs": [
            {"name": name, "num_epochs": config.get("num_epochs"), **_summarize(workdir)}
            for name, config, workdir in zip(names, configs, workdirs, strict=True)
        ],
        "config": find_differences(configs),
    }


def _summarize(workdir: epath.Path) -> dict:
    epochs, steps = read_metrics(workdir), _read_steps(workdir)
    best = max(epochs, key=lambda line: (line["val_top1"], line["step"]))
    lines_per_point = math.ceil(len(steps) / MAX_POINTS)
    names = dict.fromkeys(name for line in epochs for name in line)
    return {
        "best_epoch": best["epoch"],
        "best_val_top1": best["val_top1"],
        "epochs": {name: _column(epochs, name) for name in names},
        "steps": average_steps(steps, lines_per_point),
        "lines_per_point": lines_per_point,
    }


def _read_steps(workdir: epath.Path) -> list[dict]:
    """Returns the lines about steps in order. A run that was moved may have both kinds of files."""
    paths = [*find_entries(workdir / PARTS, "*.jsonl"), workdir / STEPS]
    with ThreadPoolExecutor(16) as pool:  # a request to a bucket takes long
        lines = {line["step"]: line for part in pool.map(read_lines, paths) for line in part}
    return [lines[step] for step in sorted(lines)]


def average_steps(lines: list[dict], size: int) -> dict[str, Column]:
    """Returns the lines of steps.jsonl as columns, with a value for each `size` of them.

    A value is the mean over the steps of these lines. "epoch" and "step" are those of the last one.
    """
    if not lines:
        return {}
    starts = np.arange(0, len(lines), size)
    last = np.append(starts[1:], len(lines)) - 1
    columns = {key: [lines[i][key] for i in last] for key in ("epoch", "step")}
    for name, key in _STEP_COLUMNS.items():
        values = np.array(_column(lines, key), float)
        weights = np.isfinite(values) * [line["steps"] for line in lines]
        if not weights.any():  # a log from before this field existed
            continue
        sums = np.add.reduceat(np.nan_to_num(values, posinf=0, neginf=0) * weights, starts)
        with np.errstate(invalid="ignore"):  # a bin without a value has NaN
            columns[name] = (sums / np.add.reduceat(weights, starts)).tolist()
    return columns


def _column(lines: list[dict], name: str) -> Column:
    values = [line.get(name) for line in lines]
    # A rate of 0 is unknown.
    return [value or None for value in values] if name == "images_per_second" else values


def _read_config(workdir: epath.Path) -> dict:
    """Returns the configuration of a run, empty if it is missing.

    Fields that are newer than the run have their defaults, as when it resumes.
    """
    path = workdir / CONFIG
    if not path.exists():
        return {}
    defaults = json.loads(default_config().to_json())
    del defaults["norm_batch_size"]  # older runs had it from their devices
    try:
        return defaults | json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}") from error


def find_differences(configs: list[dict]) -> dict[str, list[str | None]]:
    """Returns the fields in which configurations differ, and their values as text.

    A value is None where a configuration lacks the field, which does not count as a difference.
    """
    fields = {}
    for name in dict.fromkeys(name for config in configs for name in config):
        values = [_text(config[name]) if name in config else None for config in configs]
        if len({*values} - {None}) > 1:
            fields[name] = values
    return fields


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
