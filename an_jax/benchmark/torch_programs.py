"""The same inference and training step in PyTorch: channels_last, inference_mode, autocast."""

import contextlib
import time

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

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def describe() -> dict[str, str | int]:
    """Version, device and threads."""
    name = torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu"
    return {
        "torch": torch.__version__,
        "torch_device": name,
        "torch_threads": torch.get_num_threads(),
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
    model, images, _ = _placed(name, batch_size, image_size)
    model.eval()
    forward = torch.compile(model) if compiled else model

    def run(n):
        with torch.inference_mode(), _precision(dtype):
            for _ in range(n):
                forward(images)
        _wait()

    return _program(run, compiled)


def training(name: str, batch_size: int, image_size: int, dtype: str, *, compiled: bool) -> Program:
    """Forward, backward and an update by SGD; arguments as above."""
    model, images, labels = _placed(name, batch_size, image_size)
    optimizer = torch.optim.SGD(
        model.parameters(), LEARNING_RATE, MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    forward = torch.compile(model) if compiled else model

    def run(n):
        for _ in range(n):
            optimizer.zero_grad(set_to_none=True)
            with _precision(dtype):
                loss = nn.functional.cross_entropy(forward(images), labels)
            loss.backward()
            optimizer.step()
        _wait()

    return _program(run, compiled)


def _placed(name, batch_size, image_size):
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


def _program(run, compiled) -> Program:
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    run(1)
    seconds = time.perf_counter() - began
    memory = torch.cuda.max_memory_allocated() if DEVICE == "cuda" else None
    return Program(run, seconds if compiled else None, memory)
