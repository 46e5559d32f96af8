"""The same inference and training step in PyTorch: channels_last, inference_mode, autocast."""

import contextlib
import time

import jax
import torch
from torch import nn

from an_jax.benchmark.programs import (
    LEARNING_RATE,
    MOMENTUM,
    WEIGHT_DECAY,
    Program,
    synthetic_batch,
)
from an_jax.benchmark.torch_models import create_torch_model
from an_jax.errors import InputError

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def check_device() -> None:
    """Raises InputError where JAX and PyTorch would run on different devices."""
    if (jax.default_backend() == "gpu") != (DEVICE == "cuda"):
        raise InputError(
            f"JAX runs on {jax.default_backend()}, PyTorch on {DEVICE}: nothing can be compared; "
            "install both for the GPU, or set JAX_PLATFORMS=cpu and CUDA_VISIBLE_DEVICES="
        )


def describe() -> dict[str, str | int]:
    """Version, device, threads, and how algorithms are chosen on a GPU."""
    name = torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu"
    return {
        "torch": torch.__version__,
        "torch_device": name,
        "torch_threads": torch.get_num_threads(),
        "torch_tf32": "allowed" if _allows_tf32() else "forbidden",
        "torch_cudnn_benchmark": True,
    }


def inference(
    name: str, batch_size: int, image_size: int, dtype: str, *, compiled: bool
) -> Program:
    """The twin of a model in evaluation mode, on images that are normalized already.

    Args:
        name: of the zoo; see create_torch_model for what it raises.
        batch_size: images a step.
        image_size: their side, pixels.
        dtype: float32, or bfloat16 by autocast.
        compiled: whether by torch.compile.
    """
    held = _allocated()
    model, images, _ = _placed(name, batch_size, image_size)
    model.eval()
    forward = _compile(model) if compiled else model

    def run(n):
        with torch.inference_mode(), _precision(dtype):
            for _ in range(n):
                forward(images)
        _wait()

    return _program(run, compiled, held)


def training(name: str, batch_size: int, image_size: int, dtype: str, *, compiled: bool) -> Program:
    """Forward, backward and an update by SGD; arguments as above."""
    held = _allocated()
    model, images, labels = _placed(name, batch_size, image_size)
    optimizer = torch.optim.SGD(
        model.parameters(), LEARNING_RATE, MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    forward = _compile(model) if compiled else model

    def run(n):
        for _ in range(n):
            optimizer.zero_grad(set_to_none=True)
            with _precision(dtype):
                loss = nn.functional.cross_entropy(forward(images), labels)
            loss.backward()
            optimizer.step()
        _wait()

    return _program(run, compiled, held)


def _allows_tf32() -> bool:
    """As JAX computes float32 on GPUs, unless its default precision is the highest."""
    return jax.config.jax_default_matmul_precision not in ("highest", "float32")


def _compile(model):
    torch.compiler.reset()  # nothing is left of the model before
    return torch.compile(model, dynamic=False)


def _placed(name, batch_size, image_size):
    torch.backends.cudnn.benchmark = True  # XLA tries algorithms too
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = _allows_tf32()
    model = create_torch_model(name).to(DEVICE, memory_format=torch.channels_last)
    images, labels = (torch.from_numpy(a) for a in synthetic_batch(batch_size, image_size))
    images = images.to(DEVICE).permute(0, 3, 1, 2).float() / 255 - 0.5  # stays channels_last
    return model, images, labels.to(DEVICE).long()


def _precision(dtype):
    if dtype == "float32":
        return contextlib.nullcontext()
    return torch.autocast(DEVICE, getattr(torch, dtype))


def _wait():
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def _allocated():
    return torch.cuda.memory_allocated() if DEVICE == "cuda" else None


def _program(run, compiled, held) -> Program:
    """`held`: bytes that were allocated before the model."""
    began = time.perf_counter()
    run(1)
    seconds = time.perf_counter() - began
    memory = None
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
        run(1)  # the first has tried algorithms, which took memory
        memory = torch.cuda.max_memory_allocated() - held
    return Program(run, seconds if compiled else None, memory)
