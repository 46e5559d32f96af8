"""Evaluates checkpoints on test sets; writes tables, JSON, CSV and pictures."""

import argparse
import functools
import sys
from pathlib import Path

from an_jax.errors import InputError


def parse_arguments(argv) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add(
        "--checkpoint",
        action="append",
        required=True,
        type=Path,
        metavar="DIR",
        help="a checkpoint, a training run, or a directory of such; may be given several times",
    )
    add("--data_dir", help="where the test sets lie: class folders or tfds; may be gs://")
    add(
        "--datasets",
        default="imagenet-1k",
        help='names separated by commas, "published" (eight sets) or "all" (%(default)s)',
    )
    add("--output_dir", required=True, type=Path, help="where the results go")
    add("--batch_size", type=int, default=64, help="images a step on all devices (%(default)s)")
    add("--dtype", choices=["float32", "bfloat16"], default="float32", help="compute dtype")
    add("--image_size", type=int, help="side of the input (default: the checkpoint's)")
    add("--crop_pct", type=float, help="image_size over resized side (default: the checkpoint's)")
    add(
        "--interpolation",
        choices=["bilinear", "bicubic"],
        help="of the resizing (default: the checkpoint's)",
    )
    add("--save_predictions", action="store_true", help="write each image's five best classes")
    add("--allow_partial", action="store_true", help="accept a set with images missing")
    add(
        "--compare_published",
        action="store_true",
        help="compare with the published results; exit status 2 if a released model differs",
    )
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Evaluates and reports; returns the exit status. Raises InputError where the user must mend
    something."""
    from an_jax import parallel
    from an_jax.data.sets.test_sets import expand_names
    from an_jax.evaluation.published import check_comparable, compare_published
    from an_jax.evaluation.report import write_report
    from an_jax.evaluation.suite import Settings, Suite, find_checkpoints
    from an_jax.jax_settings import keep_compiled, multiply_in

    for path in (*args.checkpoint, args.output_dir):
        if ":/" in str(path):
            raise InputError(f"{path} must be a local directory; only --data_dir may be elsewhere")
    keep_compiled(args.output_dir)
    multiply_in(args.dtype)
    datasets, checkpoints = expand_names(args.datasets), find_checkpoints(args.checkpoint)
    if args.compare_published:
        check_comparable(checkpoints, datasets)
    given = {key: getattr(args, key) for key in ("image_size", "crop_pct", "interpolation")}
    settings = Settings(
        datasets=datasets,
        data_dir=args.data_dir,
        output_dir=args.output_dir,
        batch_size=args.batch_size,
        dtype=args.dtype,
        preprocessing={key: value for key, value in given.items() if value is not None},
        allow_partial=args.allow_partial,
        save_predictions=args.save_predictions,
    )
    results, table = [], ""
    for of_model in Suite(checkpoints, settings).run():
        results += of_model  # a report after each model: a later one may fail
        table = parallel.on_main_process(functools.partial(write_report, results, args.output_dir))
    if not parallel.is_main_process():
        return 0
    print(table)
    print(f"written to {args.output_dir}")
    if args.compare_published:
        comparison, is_as_published = compare_published(results)
        print(comparison)
        return 0 if is_as_published else 2
    return 0


def main(argv=None) -> int:
    """Returns the exit status."""
    args = parse_arguments(argv)
    try:
        if args.batch_size < 1:
            raise InputError("--batch_size must be at least 1")
        return run(args)
    except (InputError, OSError) as error:  # OSError: the output cannot be written
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    from an_jax.parallel import initialize

    try:
        initialize()
    except InputError as error:
        sys.exit(f"error: {error}")
    sys.exit(main())
