"""Exports a checkpoint as a StableHLO program, which runs without this package.

python -m an_jax.export CHECKPOINT OUT.stablehlo
"""

import argparse
import functools
import os
import sys
from collections.abc import Sequence

import jax
import jax.export
import jax.numpy as jnp
from etils import epath

from an_jax import functional
from an_jax.buckets import check_bucket
from an_jax.checkpoint import ModelCard, load_model
from an_jax.data.images.normalization import normalize_images
from an_jax.errors import exit_status
from an_jax.files import absolute, check_destination, replacing

PLATFORMS = ("cpu", "cuda", "tpu")
INPUTS = {"uint8": jnp.uint8, "normalized": jnp.float32}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m an_jax.export", description=__doc__)
    parser.add_argument(
        "checkpoint",
        help="a checkpoint, training run or step of it (RUN/checkpoints/STEP); may be gs://",
    )
    parser.add_argument("output", help="the file to write; may be gs://")
    parser.add_argument(
        "--input",
        choices=list(INPUTS),
        default="uint8",
        help="what the program takes: pixels, which it normalizes itself, or normalized float32 "
        "images (default: uint8)",
    )
    return exit_status(functools.partial(run, parser.parse_args(argv)))


def run(args: argparse.Namespace) -> None:
    """Exports a model and says what it takes and returns.

    Raises:
        InputError: the checkpoint is missing or damaged, or the file cannot be written.
    """
    check_bucket(args.checkpoint)
    check_bucket(args.output)
    check_destination(args.output, overwrite=True, why_foreign=why_not_exported)
    exported = export_model(args.checkpoint, args.input)
    content = exported.serialize()
    with replacing(args.output) as temporary:
        temporary.write_bytes(content)
    (images,), (logits,) = exported.in_avals, exported.out_avals
    print(
        f"exported {args.output}: {images.str_short()} -> {logits.str_short()}, "
        f"for {', '.join(PLATFORMS)}, {len(content) / 1e6:.1f} MB"
    )


def export_model(checkpoint: str | os.PathLike, input: str = "uint8") -> jax.export.Exported:
    """Exports a checkpoint's model in eval mode, with its weights.

    Args:
        checkpoint: a checkpoint, training run or step of it; may be gs://.
        input: "uint8" or "normalized", a key of INPUTS.

    Returns:
        A program that maps images [N, S, S, 3] to float32 logits [N, num_classes] for any N, in
        full float32 on every platform. S is the size of the checkpoint's preprocessing.

    Raises:
        InputError: the checkpoint is missing or damaged.
    """
    preprocessing = ModelCard.read(checkpoint).preprocessing
    definition, params, batch_stats = functional.split(load_model(checkpoint))

    def predict(images: jax.Array) -> jax.Array:
        if input == "uint8":
            images = normalize_images(images, preprocessing)
        return functional.apply_eval(definition, params, batch_stats, images)

    size = preprocessing.image_size
    shape = jax.export.symbolic_shape(f"n, {size}, {size}, 3")
    with jax.default_matmul_precision("highest"):
        return jax.export.export(jax.jit(predict), platforms=PLATFORMS)(
            jax.ShapeDtypeStruct(shape, INPUTS[input])
        )


def why_not_exported(path: epath.Path) -> str | None:
    """Says that a path is not an exported program. Returns None if it is one."""
    try:
        jax.export.deserialize(bytearray(absolute(path).read_bytes()))
    except Exception:  # of many types, on bytes of another kind
        return "is not an exported model"
    return None


if __name__ == "__main__":
    sys.exit(main())
