"""Evaluates checkpoints on test sets; writes a table, JSON, CSV and a picture."""

import argparse
import dataclasses
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
    add("--data_dir", type=Path, help="where the test sets lie: class folders or tfds")
    add("--datasets", default="imagenet-1k", help="names separated by commas (%(default)s)")
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
    return parser.parse_args(argv)


def find_checkpoints(paths: list[Path]) -> dict[str, Path]:
    """Name -> directory of each checkpoint given, or found in a directory given.

    Raises:
        InputError: a path with no checkpoint, or two of the same name.
    """
    from an_jax.checkpoint import ModelCard, is_checkpoint

    found: dict[str, Path] = {}
    for path in paths:
        children = sorted(path.iterdir()) if path.is_dir() else []
        inside = [c for c in children if is_checkpoint(c) and not c.name.startswith(".")]
        if is_checkpoint(path) or not inside:
            inside = [path]
            ModelCard.read(path)
        for checkpoint in inside:
            name = checkpoint.absolute().name
            if name in found:
                raise InputError(f"two checkpoints are named {name}: {found[name]}, {checkpoint}")
            found[name] = checkpoint
    return found


def run(args: argparse.Namespace) -> None:
    """Evaluates and reports. Raises InputError where the user must mend something."""
    import jax
    import jax.numpy as jnp

    from an_jax import functional, parallel
    from an_jax.checkpoint import ModelCard, load_model
    from an_jax.data.test_sets import TEST_SETS, open_test_set
    from an_jax.evaluation.evaluator import Evaluator
    from an_jax.evaluation.report import Result, write_report

    if args.dtype == "float32":
        # Otherwise a GPU would multiply in TF32 and a TPU in bfloat16.
        jax.config.update("jax_default_matmul_precision", "highest")
    checkpoints = find_checkpoints(args.checkpoint)
    datasets = list(dict.fromkeys(args.datasets.split(",")))
    sources = {name: open_test_set(name, args.data_dir, args.allow_partial) for name in datasets}
    cards = {name: ModelCard.read(path) for name, path in checkpoints.items()}
    check_classes(cards, {name: TEST_SETS[name].num_classes for name in datasets})
    preprocessings = {name: preprocessing_of(card, args) for name, card in cards.items()}
    make_directory(args.output_dir)

    mesh = parallel.make_mesh()
    results = []
    for name, path in checkpoints.items():
        split = functional.split(load_model(path, dtype=jnp.dtype(args.dtype)))
        preprocessing = preprocessings[name]
        evaluate = Evaluator(split.definition, preprocessing, args.batch_size, mesh)
        arrays = parallel.replicate((split.params, split.batch_stats), mesh)
        for dataset in datasets:
            predictions = args.output_dir / "predictions" / name / f"{dataset}.csv"
            accuracy = evaluate(
                *arrays,
                sources[dataset],
                title=f"{name} on {dataset}",
                predictions=predictions if args.save_predictions else None,
            )
            results.append(
                Result(
                    model=name,
                    architecture=cards[name].model,
                    dataset=dataset,
                    expected=TEST_SETS[dataset].num_images,
                    **dataclasses.asdict(accuracy),
                    num_params=functional.count(split.params),
                    image_size=preprocessing.image_size,
                    crop_pct=preprocessing.crop_pct,
                    interpolation=preprocessing.interpolation,
                    dtype=args.dtype,
                )
            )
        table = write_report(results, args.output_dir)  # after each model: a later one may fail
    print(table)
    print(f"written to {args.output_dir}")


def check_classes(cards, num_classes: dict[str, int]) -> None:
    """Raises InputError where a model has another number of classes than a test set."""
    for name, card in cards.items():
        for dataset, expected in num_classes.items():
            if card.num_classes != expected:
                raise InputError(
                    f"{name} has {card.num_classes} classes, {dataset} has {expected}: "
                    "it cannot be evaluated there"
                )


def preprocessing_of(card, args: argparse.Namespace):
    """The checkpoint's preprocessing with the command line's changes."""
    given = {key: getattr(args, key) for key in ("image_size", "crop_pct", "interpolation")}
    changed = {key: value for key, value in given.items() if value is not None}
    return dataclasses.replace(card.preprocessing, **changed)


def make_directory(path: Path) -> None:
    """Raises InputError if nothing can be written there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / ".writable").touch()
        (path / ".writable").unlink()
    except OSError as error:
        raise InputError(f"cannot write to {path}: {error}") from error


def main(argv=None) -> int:
    """Returns the exit status."""
    args = parse_arguments(argv)
    try:
        if args.batch_size < 1:
            raise InputError("--batch_size must be at least 1")
        run(args)
    except (InputError, OSError) as error:  # OSError: the output cannot be written
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
