"""Converts PyTorch weights (`.pth`, safetensors) into checkpoints, one file or all below a
directory, and checkpoints into PyTorch weights."""

import argparse
import sys
from collections.abc import Sequence

from an_jax.buckets import check_bucket
from an_jax.errors import exit_status


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line `argv` and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m convert", description=__doc__)
    parser.add_argument(
        "source",
        help="a file of weights, or a directory of such files; with --to-torch, a checkpoint "
        "directory; may be gs://",
    )
    parser.add_argument(
        "destination",
        help="the checkpoint directory to write, or the directory of all checkpoints; with "
        "--to-torch, the .pth or .safetensors file; may be gs://",
    )
    parser.add_argument(
        "--model", help="the architecture (default: recognized from keys and shapes)"
    )
    parser.add_argument(
        "--weights",
        metavar="plain|ema|NAME",
        help="which weights of a file that holds several: plain, their moving average, or the "
        "entry of this name (default: plain)",
    )
    parser.add_argument(
        "--interpolation",
        choices=["bilinear", "bicubic"],
        help="how images are resized, written into model.json (default: the architecture's)",
    )
    parser.add_argument(
        "--crop_pct",
        type=float,
        help="image size divided by the size before cropping, written into model.json (default: "
        "the architecture's)",
    )
    parser.add_argument(
        "--image_size",
        type=int,
        help="side of the images, pixels, written into model.json (default: the architecture's)",
    )
    parser.add_argument(
        "--to-torch", action="store_true", help="convert a checkpoint into a PyTorch state dict"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing destination")
    parser.add_argument(
        "--trust",
        action="store_true",
        help="read a .pth file that runs code when read; only if you trust its author",
    )
    args = parser.parse_args(argv)
    for option in ("model", "weights", "interpolation", "crop_pct", "image_size", "trust"):
        if args.to_torch and getattr(args, option):
            parser.error(f"--{option} needs a file of PyTorch weights as source")
    return exit_status(lambda: _convert(args))


def _convert(args: argparse.Namespace) -> int:
    from an_jax.checkpoint import is_checkpoint
    from an_jax.files import absolute
    from convert.bridge import from_torch, to_torch
    from convert.release import convert_release

    check_bucket(args.source)
    check_bucket(args.destination)
    if args.to_torch:
        to_torch(args.source, args.destination, overwrite=args.overwrite)
        return 0
    fields = ("interpolation", "crop_pct", "image_size")
    overrides = {name: getattr(args, name) for name in fields}
    options = {
        "model": args.model,
        "weights": args.weights or "plain",
        "preprocessing": {key: value for key, value in overrides.items() if value is not None},
        "trust": args.trust,
    }
    if absolute(args.source).is_dir() and not is_checkpoint(args.source):
        return convert_release(args.source, args.destination, overwrite=args.overwrite, **options)
    from_torch(args.source, args.destination, overwrite=args.overwrite, **options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
