"""Programs lowered for the TPU compiler, which needs no TPU."""

import importlib.util
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from jax.experimental import topologies

from an_jax import functional, parallel, zoo
from an_jax.benchmark.chips import TPUS
from an_jax.data.images.normalization import normalize_images
from an_jax.errors import InputError, one_line
from an_jax.training.config import check_config, eval_batch_size
from an_jax.training.norm_groups import make_norm_groups
from an_jax.training.optimizer import cosine_schedule, find_frozen, make_optimizer
from an_jax.training.step import abstract_state, make_train_step


def disable_tpu_search() -> None:
    """Keeps jax and libtpu from searching for a TPU and its metadata server.

    Must be called before jax is used.
    """
    jax.config.update("jax_platforms", "cpu")
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "none")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")


def tpu_devices(topology: str) -> list[jax.Device]:
    """Returns the devices of a topology, to compile for; no TPU is needed.

    Raises:
        InputError: libtpu is not installed, there is no such topology, or the stack is too small.
    """
    generation, _, shape = topology.partition(":")
    if generation not in TPUS:
        raise InputError(
            f"unknown topology {topology!r}: expected a generation ({', '.join(TPUS)}) and a "
            "shape, such as v5e:4x4"
        )
    if importlib.util.find_spec("libtpu") is None:
        raise InputError(
            "the TPU compiler is not installed: pip install libtpu==0.0.42 (Linux on x86-64), "
            "best in a separate environment"
        )
    import resource  # Windows lacks it, and libtpu

    stack, _ = resource.getrlimit(resource.RLIMIT_STACK)
    if generation == "v6e" and stack != resource.RLIM_INFINITY:
        # It overflows the stacks of its own threads.
        raise InputError("the TPU compiler crashes for v6e: run `ulimit -s unlimited` first")
    try:
        # The two cores of a v4 chip form one device only with this option.
        options: dict[str, Any] = {"chip_config_name": "megacore"} if generation == "v4" else {}
        if not set(shape) - set("1x"):  # one chip; libtpu expects hosts of 2x2
            options["chips_per_host_bounds"] = (1, 1, 1)
        return topologies.get_topology_desc(topology, platform="tpu", **options).devices
    except Exception as error:  # libtpu raises various errors for a wrong shape
        reason = one_line(error, limit=300)
        raise InputError(f"no topology {topology!r}: {reason}") from error


def lower_step(
    config: ml_collections.ConfigDict, devices: Sequence[jax.Device]
) -> jax.stages.Lowered:
    """Lowers the training step of a configuration for devices of a topology.

    Raises:
        InputError: the configuration is invalid for this number of devices.
    """
    check_config(config, len(devices))
    groups = make_norm_groups(config.batch_size, config.norm_batch_size, len(devices))
    mesh = parallel.make_mesh(groups.num_devices, devices)
    num_classes = 10 if config.dataset == "digits" else 1000
    split = functional.split(
        zoo.abstract_model(config.model, num_classes=num_classes, dtype=jnp.dtype(config.dtype))
    )
    schedule = cosine_schedule(config.learning_rate, 1000, config.num_epochs, config.warmup_epochs)
    frozen = find_frozen(config.freeze, split)
    optimizer = make_optimizer(config, schedule, frozen)
    step = make_train_step(
        split.definition,
        optimizer,
        mesh,
        zoo.get_architecture(config.model).preprocessing,
        num_classes,
        num_micro_batches=groups.num_micro_batches,
        label_smoothing=config.label_smoothing,
        mixup_alpha=config.mixup,
        frozen=frozen,
        ema_decay=config.ema,
    )

    shape = (config.batch_size, config.image_size, config.image_size, 3)
    return step.lower(
        abstract_state(split, optimizer, mesh, has_ema=config.ema > 0),
        jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=parallel.batched(mesh)),
        jax.ShapeDtypeStruct(shape[:1], jnp.int32, sharding=parallel.batched(mesh)),
    )


def lower_evaluation(
    config: ml_collections.ConfigDict, devices: Sequence[jax.Device]
) -> jax.stages.Lowered:
    """Lowers evaluation: logits of uint8 images, `eval_batch_size` of them on all devices."""
    mesh = parallel.make_mesh(devices=devices)
    model = zoo.abstract_model(config.model, dtype=jnp.dtype(config.dtype))
    definition, *arrays = functional.split(model)
    preprocessing = zoo.get_architecture(config.model).preprocessing

    def logits(
        params: functional.Arrays, batch_stats: functional.Arrays, images: jax.Array
    ) -> jax.Array:
        images = normalize_images(images, preprocessing)
        return functional.apply_eval(definition, params, batch_stats, images)

    shape = (eval_batch_size(config), config.image_size, config.image_size, 3)
    images = jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=parallel.batched(mesh))
    return jax.jit(logits).lower(*parallel.abstract(arrays, parallel.replicated(mesh)), images)
