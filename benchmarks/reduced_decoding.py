"""Measures random crops that libjpeg decodes at reduced scale, beside the same at full scale.

    taskset -c 0 python -m benchmarks.reduced_decoding

libjpeg can decode to a half, a quarter or an eighth of the size (DCT scaling). The scale is the
smallest that leaves a crop at least the model's resolution. Prints a table: for photographs of
several sizes, the share of crops at reduced scale, the throughput of one core at full and reduced
scale, and the difference of the pixels, of 255. Needs the extra `demo`.
"""

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from an_jax.benchmark.input.photographs import write_photographs
from an_jax.benchmark.input.pipelines import BATCH_SIZE, CROP_SCALE, PREPROCESSING, exhaust
from an_jax.benchmark.timing import measure_started, rates, ratio
from an_jax.data.images import cropping, decoding
from an_jax.data.images.augmentation import draw, random_window
from an_jax.data.tf_on_cpu import tf, without_autotune

SIZES = ((500, 375), (640, 480), (1000, 750), (2000, 1500))  # width and height
DIVISORS = (1, 2, 4, 8)  # of both sides
SIDE, INTERPOLATION = PREPROCESSING.image_size, PREPROCESSING.interpolation


def find_divisor(window: tf.Tensor) -> tf.Tensor:
    """Returns the largest of DIVISORS that leaves windows SIDE pixels on each side, int32 [..., 1].

    Args:
        window: top, left, height and width, int32 [..., 4].
    """
    shrinkage = tf.reduce_min(window[..., 2:], -1, keepdims=True) // SIDE
    return tf.reduce_max(tf.where(shrinkage >= DIVISORS, DIVISORS, 1), -1, keepdims=True)


def find_divisors(size: tuple[int, int], n: int = 100_000) -> np.ndarray:
    """Returns the divisors of n random crops of images of a width and height."""
    sizes = tf.tile([size[::-1]], [n, 1])
    u = tf.random.stateless_uniform([n, 4, 10], (0, 0))
    return find_divisor(random_window(sizes, CROP_SCALE, u)).numpy()


def crop_batches(files: Sequence[Path], n: int, *, is_reduced: bool) -> tf.data.Dataset:
    """Returns n batches of random crops, uint8 [B, S, S, 3], with their divisors, int32 [B, 1].

    Windows are rounded to multiples of the divisor at either scale, so both show the same.
    """

    def measure(encoded: tf.Tensor, number: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return encoded, decoding.image_size(encoded), draw(tf.stack([number, 0]))["window"]

    def plan(encoded: tf.Tensor, size: tf.Tensor, u: tf.Tensor) -> tuple:
        window = random_window(size, CROP_SCALE, u)
        divisor = find_divisor(window)
        window //= divisor
        if is_reduced:
            size = -(-size // divisor)
        else:
            window *= divisor
        not_mirrored = tf.zeros_like(divisor[..., 0], tf.bool)
        crop = cropping.plan_resized_window(size, window, SIDE, not_mirrored, INTERPOLATION)
        return encoded, divisor, crop

    def render(encoded: tf.Tensor, divisor: tf.Tensor, crop: cropping.Plan) -> tuple:
        decode = functools.partial(
            tf.io.decode_and_crop_jpeg, encoded, crop.part, 3, dct_method="INTEGER_ACCURATE"
        )
        if is_reduced:
            scales = [functools.partial(decode, ratio=d) for d in DIVISORS]
            image = tf.switch_case(tf.argmax(divisor == DIVISORS, output_type=tf.int32), scales)
        else:
            image = decode()
        whole = crop._replace(part=tf.concat([[0, 0], crop.part[2:]], 0))
        return cropping.render(image, whole, INTERPOLATION), divisor

    images = [file.read_bytes() for file in files]
    crops = (
        tf.data.Dataset.zip(
            tf.data.Dataset.from_tensor_slices(images).repeat(),
            tf.data.Dataset.range(n * BATCH_SIZE),
        )
        .map(measure, tf.data.AUTOTUNE)
        .batch(BATCH_SIZE)
        .map(plan, tf.data.AUTOTUNE)
        .unbatch()
        .map(render, tf.data.AUTOTUNE)
    )
    return without_autotune(crops.batch(BATCH_SIZE).prefetch(2))


def compare(files: Sequence[Path]) -> str:
    """Returns the cells of a row: throughputs, gain, differences of the pixels at reduced scale."""
    full, reduced = (functools.partial(crop_batches, files, is_reduced=r) for r in (False, True))
    differences = [
        np.abs(np.int32(image) - np.int32(other))[divisor[:, 0] > 1]
        for (image, divisor), (other, _) in zip(full(8), reduced(8), strict=True)
    ]
    difference = np.concatenate(differences)
    runs = {"full": lambda n: exhaust(full(n)), "reduced": lambda n: exhaust(reduced(n))}
    times = measure_started(runs, repeats=3, seconds=0.5)
    figures = ratio("gain", times["reduced"], times["full"])
    for name, turns in times.items():
        figures |= rates(name, turns, BATCH_SIZE)
    figures |= {"mean": difference.mean(), "max": difference.max()}
    return (
        "{full:.0f} | {reduced:.0f} | {gain:.2f} ({gain_range[0]:.2f} to {gain_range[1]:.2f}) | "
        "{mean:.2f} | {max}"
    ).format(**figures)


def main() -> None:
    """Prints a Markdown table."""
    print("| photographs | 1/2 | 1/4 | full, img/s | reduced, img/s | gain | mean | largest |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for size in SIZES:
        divisors = find_divisors(size)
        half, quarter = (f"{np.mean(divisors == d):.0%}" for d in (2, 4))
        cells = " | | | | "
        if divisors.max() > 1:
            with tempfile.TemporaryDirectory() as directory:
                cells = compare(write_photographs(Path(directory), size))
        print(f"| {size[0]} x {size[1]} | {half} | {quarter} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
