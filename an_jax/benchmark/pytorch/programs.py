"""The programs in PyTorch: channels_last, inference_mode, autocast."""

import contextlib
import time
from collections.abc import Callable

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
from an_jax.benchmark.pytorch.models import create_torch_model
from an_jax.benchmark.timing import Run
from an_jax.errors import InputError
from an_jax.jax_settings import matmul_precision

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def check_device() -> None:
    """Raises InputError if JAX and PyTorch run on different kinds of device."""
    if (jax.default_backend() == "gpu") != (DEVICE == "cuda"):
        raise InputError(
            f"JAX runs on {jax.default_backend()}, PyTorch on {DEVICE}, so that they cannot be "
            "compared: install both for the GPU, or set JAX_PLATFORMS=cpu and CUDA_VISIBLE_DEVICES="
        )


def describe() -> dict[str, str | int]:
    """Returns PyTorch's version, device, threads, and how it chooses algorithms on a GPU."""
    name = torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu"
    return {
        "torch": torch.__version__,
        "torch_device": name,
        "torch_threads": torch.get_num_threads(),
        "torch_tf32": "allowed" if _allows_tf32() else "forbidden",
        "torch_cudnn_benchmark": True,
    }


def inference(
    name: str, batch_size: int, image_size: int, dtype: str, *, use_compile: bool
) -> Program:
    """Builds the counterpart of a model in evaluation mode, on images already normalized.

    Args:
        name: model of the zoo.
        batch_size: images a step.
        image_size: side of the images, pixels.
        dtype: "float32", or "bfloat16" by autocast.
        use_compile: whether to use torch.compile.

    Raises:
        InputError: see create_torch_model.
    """
    allocated = _allocated_bytes()
    model, images, _ = _create(name, batch_size, image_size)
    model.eval()
    forward = _compile(model) if use_compile else model

    def run(n: int) -> None:
        with torch.inference_mode(), _precision(dtype):
            for _ in range(n):
                forward(images)
        _wait()

    return _make_program(run, use_compile, allocated)


def training(
    name: str, batch_size: int, image_size: int, dtype: str, *, use_compile: bool
) -> Program:
    """Builds a training step with SGD; the arguments are those of `inference`."""
    allocated = _allocated_bytes()
    model, images, labels = _create(name, batch_size, image_size)
    optimizer = torch.optim.SGD(
        model.parameters(), LEARNING_RATE, MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    forward = _compile(model) if use_compile else model

    def run(n: int) -> None:
        for _ in range(n):
            optimizer.zero_grad(set_to_none=True)
            with _precision(dtype):
                loss = nn.functional.cross_entropy(forward(images), labels)
            loss.backward()
            optimizer.step()
        _wait()

    return _make_program(run, use_compile, allocated)


def _allows_tf32() -> bool:
    """Whether JAX computes float32 products in TF32 on GPUs."""
    return matmul_precision() not in ("highest", "float32")


def _compile(model: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    torch.compiler.reset()  # drops what the previous model compiled
    return torch.compile(model, dynamic=False)


def _create(
    name: str, batch_size: int, image_size: int
) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """Returns a model, normalized images [N, 3, S, S] in channels_last, and labels [N]."""
    torch.backends.cudnn.benchmark = True  # XLA compares algorithms too
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = _allows_tf32()
    model = create_torch_model(name).to(DEVICE)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in stubs
    images, labels = (torch.from_numpy(a) for a in synthetic_batch(batch_size, image_size))
    images = images.to(DEVICE).permute(0, 3, 1, 2).float() / 255 - 0.5  # stays channels_last
    return model, images, labels.to(DEVICE).long()


def _precision(dtype: str) -> contextlib.AbstractContextManager:
    if dtype == "float32":
        return contextlib.nullcontext()
    return torch.autocast(DEVICE, getattr(torch, dtype))


def _wait() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def _allocated_bytes() -> int:
    return torch.cuda.memory_allocated() if DEVICE == "cuda" else 0


def _make_program(run: Run, use_compile: bool, allocated: int) -> Program:
    """Runs the first steps; `allocated` is the GPU memory in use before the model was created."""
    began = time.perf_counter()
    run(1)
    seconds = time.perf_counter() - began
    memory = None
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
        run(1)  # the first step needed memory to compare algorithms
        memory = torch.cuda.max_memory_allocated() - allocated
    return Program(run, seconds if use_compile else None, memory)
