"""The programs that are timed: inference and a training step on synthetic images."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from an_jax import functional, parallel, zoo
from an_jax.benchmark.timing import Run
from an_jax.data.images.normalization import normalize_images
from an_jax.training.optimizer import sgd
from an_jax.training.step import init_state, make_train_step

MOMENTUM, WEIGHT_DECAY, LEARNING_RATE = 0.9, 1e-4, 0.01
NUM_CLASSES = 1000


@dataclasses.dataclass(frozen=True)
class Program:
    """A program to time.

    Attributes:
        run: runs n steps, and returns when all of them have ended.
        compile_seconds: time to trace and compile without JAX's cache on disk. For torch.compile
            the time of the first step, where PyTorch's cache counts. None if nothing is compiled.
        memory_bytes: memory that a step needs on the device, as XLA reports it for the program.
            For PyTorch the peak of its allocator. None if unknown.
    """

    run: Run
    compile_seconds: float | None
    memory_bytes: int | None


def synthetic_batch(batch_size: int, image_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns random uint8 images [N, S, S, 3] and int32 labels [N]."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch_size, image_size, image_size, 3), np.uint8)
    return images, rng.integers(0, NUM_CLASSES, batch_size, np.int32)


def inference(name: str, batch_size: int, image_size: int, dtype: str) -> Program:
    """Builds the normalization of the images and the model in evaluation mode, on one device.

    Args:
        name: model of the zoo.
        batch_size: images a step.
        image_size: side of the images, pixels.
        dtype: compute dtype.
    """
    definition, *arrays = functional.split(zoo.create_model(name, dtype=jnp.dtype(dtype)))
    preprocessing = zoo.get_architecture(name).preprocessing
    images = jax.device_put(synthetic_batch(batch_size, image_size)[0])

    @jax.jit
    def apply(
        params: functional.Arrays, batch_stats: functional.Arrays, images: jax.Array
    ) -> jax.Array:
        images = normalize_images(images, preprocessing)
        return functional.apply_eval(definition, params, batch_stats, images)

    step, seconds = _compile(apply, *arrays, images)

    def run(n: int) -> None:
        for _ in range(n):
            logits = step(*arrays, images)
        jax.block_until_ready(logits)

    return Program(run, seconds, _memory_bytes(step))


def training(name: str, batch_size: int, image_size: int, dtype: str) -> Program:
    """Builds the training step of train.py, with its update, on one device.

    The arguments are those of `inference`.
    """
    split = functional.split(zoo.create_model(name, dtype=jnp.dtype(dtype)))
    mesh = parallel.make_mesh(devices=jax.devices()[:1])
    optimizer = sgd(lambda step: LEARNING_RATE, MOMENTUM, WEIGHT_DECAY)
    preprocessing = zoo.get_architecture(name).preprocessing
    train_step = make_train_step(split.definition, optimizer, mesh, preprocessing, NUM_CLASSES)
    batch = parallel.shard_batch(synthetic_batch(batch_size, image_size), mesh)
    state = parallel.replicate(init_state(split, optimizer), mesh)
    step, seconds = _compile(train_step, state, *batch)

    def run(n: int) -> None:
        nonlocal state
        for _ in range(n):
            state, _ = step(state, *batch)
        jax.block_until_ready(state)

    return Program(run, seconds, _memory_bytes(step))


def _compile(function: jax.stages.Wrapped, *arguments: Any) -> tuple[jax.stages.Compiled, float]:
    """Returns the compiled function, and the seconds that tracing and compiling took."""
    with _without_cache():
        began = time.perf_counter()
        compiled = function.lower(*arguments).compile()
        return compiled, time.perf_counter() - began


def _memory_bytes(compiled: jax.stages.Compiled) -> int | None:
    memory = compiled.memory_analysis()
    if memory is None:  # some backends keep no account
        return None
    used = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return used - memory.alias_size_in_bytes


@contextlib.contextmanager
def _without_cache() -> Iterator[None]:
    """Disables JAX's compilation cache on disk."""
    is_enabled = jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # JAX reads the setting once, and again after a reset
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", is_enabled)
        compilation_cache.reset_cache()
