"""Shows what AN attends to: its mixture weights over test sets, layer by layer."""

import argparse
import functools
import json
import os
import sys
from collections.abc import Sequence

import jax
from etils import epath

from an_jax.attention import DIRECTORY
from an_jax.attention.layers import Json, attentive_layers, format_title, select_layers
from an_jax.attention.plots import draw_layers, draw_mixture
from an_jax.errors import InputError, exit_status
from an_jax.files import absolute, make_directory, replacing
from an_jax.summary import table


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(prog="python -m an_jax.attention", description=__doc__)
    add = parser.add_argument
    add(
        "--checkpoint",
        action="append",
        required=True,
        metavar="DIR",
        help="a checkpoint, a training run, a step of it (RUN/checkpoints/STEP), or a directory of "
        "these; may be gs://, or repeated. A model with BN in place of AN is shown beside it",
    )
    add(
        "--data_dir",
        type=os.path.expanduser,
        help="directory of the test sets (class folders or tfds); may be gs://",
    )
    add(
        "--datasets",
        default="imagenet-1k",
        help="comma-separated names of test sets, or NAME=PATH for class folders of your own "
        "(default: %(default)s)",
    )
    add("--output_dir", metavar="OUT", help="write into OUT/attention/; may be gs://")
    add("--batch_size", type=int, default=64, help="batch size (default: %(default)s)")
    add("--allow_partial", action="store_true", help="accept a set with missing images")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Analyzes the models on the test sets, prints tables, and writes files if asked to.

    Raises:
        InputError: an input is invalid, or a file cannot be written.
    """
    from an_jax.attention.analysis import analyze, check_datasets, check_models, has_attention
    from an_jax.buckets import check_bucket
    from an_jax.data.sets.own_sets import parse_datasets
    from an_jax.devices import check_devices
    from an_jax.evaluation.inputs import Settings, read_inputs
    from an_jax.jax_settings import enable_compilation_cache, set_matmul_precision

    if jax.process_count() > 1:
        raise InputError(
            f"python -m an_jax.attention runs in one process, and this job has "
            f"{jax.process_count()}: start it on one host, with JAX_NUM_PROCESSES=1"
        )
    if args.batch_size < 1:
        raise InputError("--batch_size must be at least 1")
    checkpoints = [*map(absolute, args.checkpoint)]
    output_dir = absolute(args.output_dir or ".")
    datasets, own_folders = parse_datasets(args.datasets)
    check_datasets(datasets)
    for path in (*checkpoints, output_dir):
        check_bucket(path)
    check_devices()
    set_matmul_precision("float32")
    if args.output_dir:
        enable_compilation_cache(output_dir)
    settings = Settings(
        datasets=datasets,
        own_folders=own_folders,
        data_dir=args.data_dir,
        output_dir=output_dir,
        batch_size=args.batch_size,
        dtype="float32",
        preprocessing={},
        allow_partial=args.allow_partial,
        save_predictions=False,
        compare_published=False,
    )
    inputs = read_inputs(checkpoints, settings)
    check_models(inputs.models)
    directories = {model.name: output_dir / DIRECTORY / model.name for model in inputs.models}
    if args.output_dir:
        for directory in directories.values():
            make_directory(directory)
    others: list[Json] = []
    # Models without AN come first, since those with AN are shown beside them.
    for model in sorted(inputs.models, key=has_attention):
        for analysis in analyze(model, inputs, args.batch_size):
            counterparts = [other for other in others if is_counterpart(other, analysis)]
            if has_attention(model):
                print(format_table(analysis, counterparts), flush=True)
            else:
                others.append(analysis)
            if args.output_dir:
                write(analysis, counterparts, directories[model.name])
    if args.output_dir:
        print(f"written to {output_dir / DIRECTORY}")


def is_counterpart(other: Json, analysis: Json) -> bool:
    """Whether two analyses are of the same test set and have norms at the same places."""
    names, other_names = ({layer["name"] for layer in a["layers"]} for a in (analysis, other))
    return other["dataset"] == analysis["dataset"] and names == other_names


def format_table(analysis: Json, counterparts: Sequence[Json]) -> str:
    """Returns a table of a model's AN layers, in Markdown."""
    layers = attentive_layers(analysis)
    header = ["layer", "K", "in use", "per image", "by class", "scale", "± images", "shift"]
    header += ["± images", *(f"scale of {other['model']}" for other in counterparts)]
    beside = [select_layers(other, layers) for other in counterparts]
    rows = [
        [
            layer["name"],
            str(len(layer["components"])),
            f"{layer['in_use']:.1f}",
            f"{layer['in_use_per_image']:.1f}",
            "-" if layer["epsilon_squared"] is None else f"{layer['epsilon_squared']:z.2f}",
            *(
                f"{layer[field][key]:.3f}"
                for field in ("scale", "shift")
                for key in ("mean", "std_over_images")
            ),
            *(f"{other[i]['scale']['mean']:.3f}" for other in beside),
        ]
        for i, layer in enumerate(layers)
    ]
    return f"{format_title(analysis)}\n\n{table([header, *rows], 'l' + 'r' * (len(header) - 1))}"


def write(analysis: Json, counterparts: Sequence[Json], directory: epath.Path) -> None:
    """Writes SET.json and, for a model with AN, two pictures. Raises InputError if it cannot."""
    name = analysis["dataset"]
    with replacing(directory / f"{name}.json") as path:
        path.write_text(json.dumps(analysis, allow_nan=False) + "\n", encoding="utf-8")
    if attentive_layers(analysis):
        figures = {"mixture": draw_mixture(analysis), "layers": draw_layers(analysis, counterparts)}
        for kind, figure in figures.items():
            with replacing(directory / f"{name}-{kind}.png") as path:
                figure.savefig(path, format="png", dpi=110)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    return exit_status(functools.partial(run, parse_arguments(argv)))


def start() -> None:
    """Joins the other processes of the job, if there are any, and runs the command."""
    from an_jax.parallel import initialize

    args = parse_arguments(None)
    initialize()
    run(args)


if __name__ == "__main__":
    sys.exit(exit_status(start))
