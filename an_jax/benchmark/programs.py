"""What is measured of a model: its inference and its training step, on synthetic images."""

import contextlib
import dataclasses
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from an_jax import functional, parallel, zoo
from an_jax.data.images.normalization import normalize_images
from an_jax.training.optimizer import sgd
from an_jax.training.step import init_state, make_train_step

MOMENTUM, WEIGHT_DECAY, LEARNING_RATE = 0.9, 1e-4, 0.01
NUM_CLASSES = 1000


@dataclasses.dataclass(frozen=True)
class Program:
    """Something to time.

    Attributes:
        run: runs n steps, and returns when all have ended.
        compile_seconds: time it took to trace and compile, with nothing from JAX's cache on disk
            (of PyTorch: the first step, and its cache counts); None where nothing was compiled.
        memory_bytes: what a step needs of the device, by XLA's account of the program (of PyTorch:
            the most that its allocator has given out); None if unknown.
    """

    run: Callable[[int], None]
    compile_seconds: float | None
    memory_bytes: int | None


def synthetic_batch(batch_size: int, image_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Random uint8 images [N, S, S, 3] and int32 labels [N]."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch_size, image_size, image_size, 3), np.uint8)
    return images, rng.integers(0, NUM_CLASSES, batch_size, np.int32)


def inference(name: str, batch_size: int, image_size: int, dtype: str) -> Program:
    """Normalization of the images and the model, with running statistics; on one device.

    Args:
        name: of the zoo.
        batch_size: images a step.
        image_size: their side, pixels.
        dtype: compute dtype.
    """
    split = functional.split(zoo.create_model(name, dtype=jnp.dtype(dtype)))
    preprocessing = zoo.get_architecture(name).preprocessing
    images = jax.device_put(synthetic_batch(batch_size, image_size)[0])

    def logits(params, batch_stats, images):
        images = normalize_images(images, preprocessing)
        return functional.apply_eval(split.definition, params, batch_stats, images)

    step, seconds, memory = _compiled(jax.jit(logits), split.params, split.batch_stats, images)

    def run(n):
        for _ in range(n):
            result = step(split.params, split.batch_stats, images)
        jax.block_until_ready(result)

    return Program(run, seconds, memory)


def training(name: str, batch_size: int, image_size: int, dtype: str) -> Program:
    """The whole training step of train.py, with its update, on one device; arguments as above."""
    split = functional.split(zoo.create_model(name, dtype=jnp.dtype(dtype)))
    mesh = parallel.make_mesh(devices=jax.devices()[:1])
    optimizer = sgd(lambda step: LEARNING_RATE, MOMENTUM, WEIGHT_DECAY)
    preprocessing = zoo.get_architecture(name).preprocessing
    step = make_train_step(split.definition, optimizer, mesh, preprocessing, NUM_CLASSES)
    batch = parallel.shard_batch(synthetic_batch(batch_size, image_size), mesh)
    state = parallel.replicate(init_state(split, optimizer), mesh)
    step, seconds, memory = _compiled(step, state, *batch)

    def run(n):
        nonlocal state
        for _ in range(n):
            state, _ = step(state, *batch)
        jax.block_until_ready(state)

    return Program(run, seconds, memory)


def _compiled(function, *arguments):
    with _without_cache():
        began = time.perf_counter()
        compiled = function.lower(*arguments).compile()
        seconds = time.perf_counter() - began
    found = compiled.memory_analysis()
    if found is None:  # some backends keep no account
        return compiled, seconds, None
    memory = found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
    return compiled, seconds, memory - found.alias_size_in_bytes


@contextlib.contextmanager
def _without_cache():
    """Within it, nothing is taken from JAX's cache on disk."""
    usual = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # JAX looks at the setting once, and again after this
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", usual)
        compilation_cache.reset_cache()
