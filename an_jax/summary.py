"""Summarize a model: `python -m an_jax.summary resnet_50_an_bn2`; without a name, all models."""

import argparse
import math
import re
import sys
from collections import defaultdict
from collections.abc import Iterable

from an_jax import zoo
from an_jax.errors import exit_status
from an_jax.zoo.cost import Part, summarize
from an_jax.zoo.released import RELEASED


def describe(name: str, image_size: int | None = None) -> str:
    """Returns a model's totals, a table of its parts, and its published results, in Markdown.

    Args:
        name: a name in the zoo.
        image_size: side of the image in pixels; by default the model's own.

    Raises:
        InputError: the name is unknown, or the image too small for the model.
    """
    parts = summarize(name, image_size)
    size = image_size or zoo.get_architecture(name).preprocessing.image_size
    params, macs, activations = _totals(parts)
    rows = [
        [
            part.name,
            "x".join(map(str, part.output)),
            f"{part.params:,}",
            f"{part.macs / 1e9:.3f}",
            f"{part.activations / 1e6:.2f}",
            _describe_norms(part),
        ]
        for part in parts
    ]
    header = ["part", "output", "parameters", "GMACs", "activations (M)", "normalization"]
    text = (
        f"{name}: {params:.3f} M parameters, {macs:.2f} GMACs, {activations:.2f} M activations "
        f"at {size} px\n\n{table([header, *rows], 'llrrrl')}"
    )
    released = [key for key, value in RELEASED.items() if value.architecture == name]
    if released:
        columns = zip(*_published(released), strict=True)
        text += "\n" + table(columns, "l" + "r" * len(released))
    return text


def overview() -> str:
    """Returns tables of the papers' architectures and of the released checkpoints, in Markdown."""
    rows = [_architecture(name) for name in zoo.list_models()]
    header = ["architecture", "parameters (M)", "GMACs", "activations (M)", "AN", "BN", "SE"]
    checkpoints = _published(RELEASED)
    alignment = "ll" + "r" * (len(checkpoints[0]) - 2)
    return table([header, *rows], "lrrrrrr") + "\n" + table(checkpoints, alignment)


def _architecture(name: str) -> list[str]:
    """Returns an architecture's row: name, costs, and numbers of AN, BN and SE."""
    parts = summarize(name)
    params, macs, activations = _totals(parts)
    norms = [norm for part in parts for norm in part.norms.values()]
    num_an = sum(isinstance(norm, int) for norm in norms)
    counts = (num_an, norms.count("BN"), sum(len(part.squeeze_excite) for part in parts))
    costs = (f"{params:.3f}", f"{macs:.2f}", f"{activations:.2f}")
    return [name, *costs, *(str(count or "") for count in counts)]


def _published(names: Iterable[str]) -> list[list[str]]:
    """Returns a header, and a row for each checkpoint: name, recipe, published results."""
    columns = next(iter(RELEASED.values())).results
    rows = [["top-1 / top-5 (%)", "recipe", *columns]]
    for name in names:
        recipe = RELEASED[name].recipe
        extras = [f"smoothing {recipe.label_smoothing}"] if recipe.label_smoothing else []
        extras += [f"mixup {recipe.mixup}"] if recipe.mixup else []
        results = RELEASED[name].results.values()
        accuracies = [f"{100 * top1:.1f} / {100 * top5:.1f}" for top1, top5 in results]
        rows.append([name, ", ".join([f"{recipe.num_epochs} epochs", *extras]), *accuracies])
    return rows


def _totals(parts: list[Part]) -> tuple[float, float, float]:
    """Returns millions of parameters, GMACs, and millions of activations."""
    return (
        sum(part.params for part in parts) / 1e6,
        sum(part.macs for part in parts) / 1e9,
        sum(part.activations for part in parts) / 1e6,
    )


def _describe_norms(part: Part) -> str:
    paths_by_norm: dict[int | str, list[str]] = defaultdict(list)
    for path, norm in part.norms.items():
        paths_by_norm[norm].append(path)
    texts = [f"{len(paths_by_norm[norm])} {norm}" for norm in ("BN", "GN") if norm in paths_by_norm]
    for norm, paths in paths_by_norm.items():
        if isinstance(norm, int):
            texts.append(f"{len(paths)} AN (K = {norm}): {', '.join(compress(paths))}")
    if part.squeeze_excite:
        places = ", ".join(compress(part.squeeze_excite))
        texts.append(f"{len(part.squeeze_excite)} SE: {places}")
    return "; ".join(texts)


def compress(paths: Iterable[str]) -> list[str]:
    """Joins paths that differ only in numbers: layer1.0.norm2 and layer1.1.norm2 become
    layer1.{0..1}.norm2."""
    groups: dict[str, list[list[int]]] = defaultdict(list)
    for path in paths:
        groups[re.sub(r"\d+", "{}", path)].append([int(n) for n in re.findall(r"\d+", path)])
    patterns = []
    for form, rows in groups.items():
        columns = [sorted(set(column)) for column in zip(*rows, strict=True)]
        if math.prod(map(len, columns)) == len(rows):  # every combination of the numbers
            patterns.append(form.format(*map(_braces, columns)))
        else:
            patterns += [form.format(*row) for row in rows]
    return patterns


def _braces(numbers: list[int]) -> str:
    if len(numbers) == 1:
        return str(numbers[0])
    if numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{{{numbers[0]}..{numbers[-1]}}}"
    return "{" + ",".join(map(str, numbers)) + "}"


def table(rows: Iterable[Iterable[str]], alignment: str) -> str:
    """Returns Markdown with aligned columns.

    Args:
        rows: the header, then the others.
        alignment: "l" or "r" for each column.
    """
    header, *body = (list(row) for row in rows)
    widths = [max(map(len, column)) for column in zip(header, *body, strict=True)]
    columns = list(zip(alignment, widths, strict=True))
    rule = ["-" * (width - 1) + (":" if side == "r" else "-") for side, width in columns]
    lines = (
        [f"{c:{'>' if side == 'r' else '<'}{w}}" for c, (side, w) in zip(row, columns, strict=True)]
        for row in (header, rule, *body)
    )
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main(argv: list[str] | None = None) -> int:
    """Prints the summary of one model or of all, and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m an_jax.summary", description=__doc__)
    parser.add_argument(
        "model", nargs="?", help="name of an architecture (default: tables of all models)"
    )
    parser.add_argument(
        "--image_size", type=int, help="side of the image in pixels (default: the model's own)"
    )
    args = parser.parse_args(argv)
    if args.image_size and not args.model:
        parser.error("--image_size needs a model")
    return exit_status(
        lambda: print(describe(args.model, args.image_size) if args.model else overview(), end="")
    )


if __name__ == "__main__":
    sys.exit(main())
