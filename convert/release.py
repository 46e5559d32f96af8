"""Converts every file of weights below a directory, such as that of a release."""

import math
import os
import re
import sys
from collections import Counter
from typing import Any, NamedTuple

from etils import epath

from an_jax.checkpoint import ModelCard, is_checkpoint
from an_jax.errors import InputError, file_errors, with_advice
from an_jax.files import absolute, restore_interrupted
from an_jax.summary import table
from an_jax.zoo.released import RELEASED
from convert.bridge import from_torch
from convert.torch_layout import torch_layout

_SUFFIX = re.compile(r"\.(pth\.tar|pth|pt|safetensors)$")
# The folder of a released model: its name, and possibly accuracies in percent.
_PUBLISHED = re.compile(
    r"((?:aognet|densenet|mobilenet|resnet)[\w-]*?[-_]imagenet(?:[-_]200e[-_]\w+?[-_]mixup)?)"
    r"(?P<accuracies>-.*%.*)?"
)
_ACCURACY = re.compile(r"(top[15](?:_reallabels)?)-(\d+(?:\.\d+)?)%")
_TEST_SETS = {"": "imagenet-1k", "reallabels": "imagenet-1k-reassessed"}
_ROUNDING = 0.0005  # of the published accuracies


class _File(NamedTuple):
    """A file of weights, the name of its checkpoint, and the accuracies in its folder's name."""

    path: epath.Path
    name: str
    accuracies: dict[str, float]


def convert_release(
    source: str | os.PathLike,
    destination: str | os.PathLike,
    *,
    overwrite: bool = False,
    **options: Any,
) -> int:
    """Converts all files of weights below a directory and prints a table of them.

    A checkpoint has the published name of the file's folder, or else the name of the file. Those
    that exist are kept, unless `overwrite` is set.

    Args:
        source: the directory.
        destination: the directory of the checkpoints.
        overwrite: whether to convert again what exists.
        **options: of `from_torch`, for every file.

    Returns:
        The exit status: 1 if any file failed.

    Raises:
        InputError: there is no file of weights.
    """
    root = absolute(source)
    files = [_describe(path) for path in _find(root)]
    if not files:
        raise InputError(
            f"no weights below {root}: no file is named *.pth, *.pth.tar, *.pt or *.safetensors"
        )
    restore_interrupted(absolute(destination))
    counts = Counter(file.name for file in files)
    rows = [["file", "architecture", "parameters (M)", "checkpoint"]]
    outcomes: Counter[str] = Counter()
    for number, file in enumerate(files, start=1):
        print(f"[{number}/{len(files)}] {file.path}")
        checkpoint = absolute(destination) / file.name
        model, params, result = "", "", str(checkpoint)
        try:
            if counts[file.name] > 1:
                same = [str(other.path) for other in files if other.name == file.name]
                raise InputError(
                    f"{len(same)} files would become {file.name}: {', '.join(same)}; convert them "
                    "one by one"
                )
            outcome, card = _convert(file, checkpoint, overwrite=overwrite, **options)
            model, params = card.model, f"{_count(card) / 1e6:.3f}"
        except file_errors(InputError) as error:
            message = str(error) if isinstance(error, InputError) else with_advice(error)
            print(f"error: {message}", file=sys.stderr)
            outcome, result = "failed", message.splitlines()[0].removeprefix(f"{file.path} ")
        outcomes[outcome] += 1
        rows.append([str(file.path.relative_to(root)), model, params, f"{outcome}: {result}"])
    print("\n" + table(rows, "llrl"))
    print(", ".join(f"{outcomes[kind]} {kind}" for kind in ("converted", "kept", "failed")))
    return int(outcomes["failed"] > 0)


def _find(root: epath.Path) -> list[epath.Path]:
    """Returns the files of weights below a directory, sorted; hidden files are none."""
    paths = (folder / name for folder, _, names in root.walk() for name in names)
    return sorted(p for p in paths if _SUFFIX.search(p.name) and not p.name.startswith("."))


def _describe(path: epath.Path) -> _File:
    published = _PUBLISHED.fullmatch(path.parent.name)
    if published is None:
        return _File(path, _SUFFIX.sub("", path.name), {})
    accuracies = {
        kind: round(float(percent) / 100, 6)
        for kind, percent in _ACCURACY.findall(published["accuracies"] or "")
    }
    return _File(path, published[1], accuracies)


def _convert(
    file: _File, checkpoint: epath.Path, *, overwrite: bool, **options: Any
) -> tuple[str, ModelCard]:
    """Converts a file unless its checkpoint exists. Returns "converted" or "kept", and the card."""
    if is_checkpoint(checkpoint) and not overwrite:
        return "kept", ModelCard.read(checkpoint)
    card = from_torch(
        file.path,
        checkpoint,
        published_name=file.name,
        origin={"accuracies": file.accuracies} if file.accuracies else {},
        overwrite=overwrite,
        **options,
    )
    for warning in _compare(file, card.model):
        print(f"warning     {warning}")
    return "converted", card


def _compare(file: _File, model: str) -> list[str]:
    """Returns the differences between a folder's name and the published table."""
    if file.name not in RELEASED:
        return []
    released = RELEASED[file.name]
    differences = []
    if released.architecture != model:
        differences.append(f"{file.name} is {released.architecture}, these weights are {model}")
    for kind, accuracy in file.accuracies.items():
        metric, _, labels = kind.partition("_")
        published = released.results[_TEST_SETS[labels]][("top1", "top5").index(metric)]
        if abs(accuracy - published) > _ROUNDING + 1e-9:
            differences.append(
                f"the folder's name says {kind} {accuracy:.2%}, published are {published:.1%}"
            )
    return differences


def _count(card: ModelCard) -> int:
    layout = torch_layout(card.model, card.num_classes)
    return sum(math.prod(tensor.shape) for tensor in layout if tensor.is_param)
