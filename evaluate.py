"""Evaluates checkpoints on test sets; writes tables, JSON, CSV and pictures."""

import argparse
import functools
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from an_jax.errors import InputError, exit_status

if TYPE_CHECKING:  # importing it takes time
    from etils import epath


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add(
        "--checkpoint",
        action="append",
        required=True,
        metavar="DIR",
        help="a checkpoint, a training run, a step of it (RUN/checkpoints/STEP), or a directory of "
        "these; may be gs://, or repeated",
    )
    add(
        "--data_dir",
        type=os.path.expanduser,
        help="directory of the test sets (class folders or tfds); may be gs://",
    )
    add(
        "--datasets",
        default="imagenet-1k",
        help='comma-separated names, "published" (eight sets), "all", or NAME=PATH for class '
        "folders of your own (default: %(default)s)",
    )
    add("--output_dir", required=True, help="directory of the results; may be gs://")
    add("--batch_size", type=int, default=64, help="global batch size (default: %(default)s)")
    add("--dtype", choices=["float32", "bfloat16"], default="float32", help="compute dtype")
    add("--image_size", type=int, help="side of the input (default: the checkpoint's)")
    add(
        "--crop_pct",
        type=float,
        help="image size divided by the size before cropping (default: the checkpoint's)",
    )
    add(
        "--interpolation",
        choices=["bilinear", "bicubic"],
        help="how images are resized (default: the checkpoint's)",
    )
    add(
        "--save_predictions",
        action="store_true",
        help="write each image's five best classes; the report shows the errors",
    )
    add("--allow_partial", action="store_true", help="accept a set with missing images")
    add(
        "--compare_published",
        action="store_true",
        help="compare with the published results; exit status 2 if a released model differs",
    )
    add(
        "--stall_minutes",
        type=float,
        default=30,
        help="end a process that makes no step for so long; 0: never (default: %(default)s)",
    )
    add(
        "--initialization_timeout",
        type=int,
        default=300,
        help="seconds to wait for all processes to start (default: %(default)s)",
    )
    add(
        "--heartbeat_timeout",
        type=int,
        default=100,
        help="seconds without a heartbeat until a process is dead (default: %(default)s)",
    )
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Evaluates and reports; returns the exit status.

    Raises:
        InputError, OSError: an input is invalid, or a file cannot be read or written.
    """
    from an_jax import parallel
    from an_jax.buckets import check_bucket
    from an_jax.data.sets.own_sets import parse_datasets
    from an_jax.devices import check_devices, describe_devices
    from an_jax.evaluation.inputs import Settings, open_inputs
    from an_jax.evaluation.output import write_output
    from an_jax.evaluation.result import Result
    from an_jax.evaluation.suite import evaluate_models
    from an_jax.files import absolute
    from an_jax.jax_settings import enable_compilation_cache, set_matmul_precision
    from an_jax.watchdog import watchdog

    if args.batch_size < 1:
        raise InputError("--batch_size must be at least 1")
    checkpoints, output_dir = [*map(absolute, args.checkpoint)], absolute(args.output_dir)
    overrides = {key: getattr(args, key) for key in ("image_size", "crop_pct", "interpolation")}
    datasets, own_folders = parse_datasets(args.datasets)
    settings = Settings(
        datasets=datasets,
        own_folders=own_folders,
        data_dir=args.data_dir,
        output_dir=output_dir,
        batch_size=args.batch_size,
        dtype=args.dtype,
        preprocessing={key: value for key, value in overrides.items() if value is not None},
        allow_partial=args.allow_partial,
        save_predictions=args.save_predictions,
        compare_published=args.compare_published,
    )
    for path in (*checkpoints, output_dir):
        check_bucket(path)
    check_devices()
    if parallel.is_main_process():
        print(f"evaluating on {describe_devices()}", flush=True)
    enable_compilation_cache(output_dir)
    set_matmul_precision(args.dtype)
    parallel.connect()
    results: list[Result] = []
    table = None
    with watchdog(args.stall_minutes):
        for model_results in evaluate_models(open_inputs(checkpoints, settings), settings):
            results += model_results
            # Write the results after each model, since a later one may fail.
            table = parallel.on_main_process(functools.partial(write_output, results, output_dir))
    finish = functools.partial(_finish, args, results, table, output_dir)
    return parallel.on_main_process(finish) or 0


def _finish(
    args: argparse.Namespace, results: list, table: str | None, output_dir: "epath.Path"
) -> int:
    """Prints the results and writes the page about them; returns the exit status.

    A page that cannot be written, for example because of another command's files in the output
    directory, is only reported: the results are complete.
    """
    from an_jax.evaluation.output import REPORT
    from an_jax.evaluation.published import compare_published
    from an_jax.report.write import write_report

    print(table)
    is_as_published = True
    if args.compare_published:
        comparison, is_as_published = compare_published(results)
        print(comparison)
    print(f"written to {args.output_dir}")
    try:
        write_report([output_dir], output_dir / REPORT)
        print(f"open {output_dir / REPORT} in a browser")
    except InputError as error:
        print(f"warning: there is no new {REPORT}: {error}", file=sys.stderr)
    return 0 if is_as_published else 2


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command in a process that has joined the others; returns the exit status."""
    args = parse_arguments(argv)
    return exit_status(functools.partial(run, args))


def start() -> int:
    """Joins the other processes of the job, if there are any, and runs the command."""
    from an_jax.jax_settings import collect_garbage_rarely

    collect_garbage_rarely()  # before TensorFlow and orbax are imported
    from an_jax.parallel import initialize

    args = parse_arguments(None)
    initialize(
        initialization_timeout=args.initialization_timeout, heartbeat_timeout=args.heartbeat_timeout
    )
    return run(args)


if __name__ == "__main__":
    sys.exit(exit_status(start))
