"""Measures the memory of a host that evaluates images, and where it goes.

    python -m benchmarks.evaluation_memory --num_images=50000

A linear layer on the mean color stands for the model, whose arrays an accelerator would hold.
Prints the resident memory after each stage, and its peak in each quarter of the evaluation. Linux
only; needs the extra `demo`.
"""

import argparse
import tempfile
import threading
from pathlib import Path


def resident() -> float:
    """Returns the resident memory of this process in MB."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0]) * 1024 / 1e6


def report(stage: str, megabytes: float) -> None:
    """Prints a row."""
    print(f"| {stage} | {megabytes:.0f} |", flush=True)


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--num_images", type=int, default=4096)
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--size", type=int, nargs=2, default=(500, 375), help="width and height")
    args = parser.parse_args()
    print("| stage | MB |\n| --- | ---: |")
    report("Python", resident())
    import jax
    from flax import nnx

    report("jax, flax", resident())
    import an_jax.data.tf_on_cpu

    report("TensorFlow", resident())
    import an_jax.evaluation.suite  # noqa: F401
    from an_jax import functional, parallel
    from an_jax.benchmark.input.photographs import write_photographs
    from an_jax.benchmark.input.pipelines import PREPROCESSING, image_list
    from an_jax.evaluation.evaluator import Evaluator

    class MeanColor(nnx.Module):
        def __init__(self) -> None:
            self.fc = nnx.Linear(3, 1000, rngs=nnx.Rngs(0))

        def __call__(self, images: jax.Array) -> jax.Array:
            return self.fc(images.mean((1, 2)))

    with tempfile.TemporaryDirectory() as directory:
        files = write_photographs(Path(directory), tuple(args.size))
        report("this package, orbax, scikit-learn", resident())
        mesh = parallel.make_mesh(devices=jax.devices()[:1])
        split = functional.split(MeanColor())
        params, batch_stats = parallel.replicate((split.params, split.batch_stats), mesh)
        evaluate = Evaluator(split.definition, 1000, PREPROCESSING, args.batch_size, mesh)
        source = image_list(files, args.num_images)
        report("jax's devices, list of images", resident())
        samples, is_done = [], threading.Event()

        def sample() -> None:
            while not is_done.wait(0.1):
                samples.append(resident())

        thread = threading.Thread(target=sample)
        thread.start()
        try:
            evaluate(params, batch_stats, source, title="evaluation")
        finally:
            is_done.set()
            thread.join()
    for quarter in range(4):
        part = samples[len(samples) * quarter // 4 : len(samples) * (quarter + 1) // 4]
        report(f"peak, quarter {quarter + 1}", max(part, default=0))
    report("end", resident())


if __name__ == "__main__":
    main()
