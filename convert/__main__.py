"""Converts between PyTorch `.pth` files and checkpoints."""

import argparse
import sys
from collections.abc import Sequence

from an_jax.buckets import check_bucket
from an_jax.errors import exit_status


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line `argv` and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m convert", description=__doc__)
    parser.add_argument(
        "source", help="a .pth file; with --to-torch, a checkpoint directory; may be gs://"
    )
    parser.add_argument(
        "destination",
        help="the checkpoint directory to write; with --to-torch, the .pth file; may be gs://",
    )
    parser.add_argument(
        "--model", help="the architecture (default: recognized from keys and shapes)"
    )
    parser.add_argument(
        "--weights",
        choices=["plain", "ema"],
        help="which weights of a .pth file that also holds a moving average (default: plain)",
    )
    parser.add_argument(
        "--to-torch", action="store_true", help="convert a checkpoint into a .pth state dict"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing destination")
    parser.add_argument(
        "--trust",
        action="store_true",
        help="read a .pth file that runs code when read; only if you trust its author",
    )
    args = parser.parse_args(argv)
    if args.to_torch and args.trust:
        parser.error("--trust needs a .pth source")
    if args.to_torch and args.weights:
        parser.error("--weights needs a .pth source")
    if args.to_torch and args.model:
        parser.error("--model needs a .pth source: a checkpoint names its own model")
    try:
        from convert.bridge import from_torch, to_torch
    except ImportError as error:
        advice = "conversion needs PyTorch: pip install -e '.[convert]'"
        print(f"error: {error}: {advice}", file=sys.stderr)
        return 1

    def convert() -> None:
        check_bucket(args.source)
        check_bucket(args.destination)
        if args.to_torch:
            to_torch(args.source, args.destination, overwrite=args.overwrite)
        else:
            from_torch(
                args.source,
                args.destination,
                model=args.model,
                weights=args.weights or "plain",
                overwrite=args.overwrite,
                trust=args.trust,
            )

    return exit_status(convert)


if __name__ == "__main__":
    sys.exit(main())
