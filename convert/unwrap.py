"""Finds the state dict in a file that any training script saved."""

import itertools
import os
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from an_jax.errors import InputError

MAX_DEPTH = 4  # of the entries that are searched
# In the name of an average of the weights over training, such as "model_ema".
_AVERAGE = re.compile(r"(^|[._])(ema|swa|average|averaged|shadow)($|[._])")
_COUNTER = "n_averaged"  # PyTorch's AveragedModel counts the models in its average


class Found(NamedTuple):
    """A state dict.

    Attributes:
        tensors: key -> array.
        wrapper: dotted path of its entry; "" if it is the whole content.
        unread_average: path of averaged weights beside it, or "".
    """

    tensors: dict[str, np.ndarray]
    wrapper: str
    unread_average: str


def unwrap(path: str | os.PathLike, content: object, weights: str) -> Found:
    """Returns the state dict in a file's content: the entry with the most tensors.

    Args:
        path: named in error messages.
        content: what the file holds: arrays in dictionaries, with anything beside them.
        weights: "plain", "ema" for an entry whose name says that it is an average, or the name of
            an entry.

    Raises:
        InputError: there is no such state dict, or there are several of the same size.
    """
    entries = dict(_state_dicts(content, ""))
    averages = {
        name: tensors
        for name, tensors in entries.items()
        if _AVERAGE.search(name) or (len(entries) > 1 and _COUNTER in tensors)
    }
    if weights == "plain":
        chosen = {name: tensors for name, tensors in entries.items() if name not in averages}
    elif weights == "ema":
        chosen = averages
    else:
        chosen = {name: tensors for name, tensors in entries.items() if name == weights}
    if not chosen:
        raise InputError(f"{path} {_explain(content, entries, weights)}")
    size = max(map(len, chosen.values()))
    names = [name for name, tensors in chosen.items() if len(tensors) == size]
    if len(names) > 1:
        raise InputError(
            f"{path} holds {len(names)} state dicts of {size} tensors: "
            f"{', '.join(map(repr, names))}; choose one with --weights NAME"
        )
    tensors = {key: array for key, array in chosen[names[0]].items() if key != _COUNTER}
    is_average = names[0] in averages
    return Found(tensors, names[0], "" if is_average else next(iter(averages), ""))


def strip_prefix(tensors: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], str]:
    """Removes the dotted prefix that all keys share, such as "module.", and returns it too."""
    prefix = common_prefix(list(tensors))
    return {key.removeprefix(prefix): array for key, array in tensors.items()}, prefix


def common_prefix(keys: list[str]) -> str:
    """Returns the longest dotted prefix of all keys; the last part of a key is never in it."""
    columns = zip(*(key.split(".")[:-1] for key in keys), strict=False)
    shared = itertools.takewhile(lambda parts: len(set(parts)) == 1, columns)
    return "".join(f"{parts[0]}." for parts in shared)


def _state_dicts(content: Any, path: str, depth: int = MAX_DEPTH) -> Iterator[tuple[str, dict]]:
    """Yields the path and content of each dictionary of arrays."""
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        return
    if content and all(isinstance(value, np.ndarray) for value in content.values()):
        yield path, content
    elif depth:
        for key, value in content.items():
            yield from _state_dicts(value, f"{path}.{key}" if path else key, depth - 1)


def _explain(content: object, entries: dict[str, dict], weights: str) -> str:
    names = ", ".join(map(repr, entries))
    if weights == "plain" and entries:
        return f"holds only averaged weights ({names}): give --weights ema"
    if entries:
        kind = "averaged weights" if weights == "ema" else f"state dict {weights!r}"
        only = f", only {names}" if any(entries) else ", only a bare state dict"
        return f"holds no {kind}{only}"
    if not isinstance(content, dict) or not content:
        return f"holds a {type(content).__name__}, not a state dict"
    others = [str(key) for key, value in content.items() if not isinstance(value, np.ndarray)]
    return (
        f"holds no state dict: its entries {', '.join(others[:8])} are not dense tensors of a "
        "NumPy type, nor dictionaries of such"
    )
