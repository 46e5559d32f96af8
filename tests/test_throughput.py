"""How models are measured: memory that does not suffice, fair settings, what is said of it."""

import dataclasses
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from an_jax.benchmark import programs, torch_programs
from an_jax.benchmark.chips import PEAK_FLOPS
from an_jax.benchmark.out_of_memory import who_ran_out
from an_jax.benchmark.throughput import Settings, Step, Throughput, measure_model
from an_jax.benchmark.throughput_report import csv_text, describe
from an_jax.errors import InputError

SETTINGS = Settings("infer", 4, None, "float32", False, False, 1, 0.0, None)
STEP = Step(step_time=207.36, step_time_range=(200.0, 210.0), compile_seconds=10.0, memory_gib=2.0)
RESULT = Throughput(
    **vars(STEP),
    **{"model": "resnet_50_bn", "mode": "infer", "dtype": "float32", "img_size": 224},
    **{"batch_size": 256, "samples_per_sec": 1234.5678, "param_count": 25.557, "gmacs": 4.111},
    **{"macts": 11.112, "tflops": 10.1, "utilisation": None, "torch": {}},
)


def test_columns_and_formats_are_timms():
    assert csv_text([RESULT]) == (
        "model,infer_img_size,infer_samples_per_sec,infer_step_time,infer_batch_size,param_count,"
        "infer_gmacs,infer_macts\nresnet_50_bn,224,1234.57,207.360,256,25.56,4.11,11.11\n"
    )
    train = dataclasses.replace(RESULT, mode="train")
    slower = dataclasses.replace(train, model="resnet_101_bn", samples_per_sec=9.0)
    header, first, second = csv_text([slower, train]).splitlines()
    assert header == (
        "model,train_img_size,train_samples_per_sec,train_step_time,train_batch_size,param_count"
    )
    assert first.startswith("resnet_50_bn,")
    assert second.startswith("resnet_101_bn,")


def test_in_words():
    full = dataclasses.replace(
        RESULT,
        utilisation=0.312,
        torch={"eager": dataclasses.replace(STEP, compile_seconds=None), "compile": STEP},
        ratio=1.0,
        ratio_range=(0.9, 1.1),
    )
    step = "207.36 ms a step (200.00 to 210.00)"
    ours = "resnet_50_bn             infer float32 224 px, batch 256: 1234.6 img/s, "
    ours += f"{step}, compiled in 10.0 s, 2.00 GiB, 10.10 TFLOP/s"
    assert describe(RESULT) == ours
    assert describe(full) == (
        f"{ours} (31 % of the chip's peak); PyTorch (eager) {step}, 2.00 GiB; "
        f"PyTorch (compile) {step}, compiled in 10.0 s, 2.00 GiB; ratio 1.00 (0.90 to 1.10)"
    )


def test_out_of_memory_halves_the_batch(monkeypatch):
    tried, said, held = [], [], []
    inference = programs.inference

    def limited(name, batch_size, *rest):
        assert all(array() is None for array in held)  # nothing of the larger batch is left
        tried.append(batch_size)
        if batch_size > 1:
            array = np.zeros(batch_size)
            held.append(weakref.ref(array))
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return inference(name, batch_size, *rest)

    monkeypatch.setattr(programs, "inference", limited)
    assert measure_model("resnet_20_bn", SETTINGS, said.append).batch_size == 1
    assert tried == [4, 2, 1]
    assert said[-1] == "resnet_20_bn: JAX is out of memory; trying batches of 1"


def test_not_even_one_image_fits(monkeypatch):
    def full(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr(programs, "inference", full)
    with pytest.raises(InputError, match="JAX is out of memory even with one image"):
        measure_model("resnet_20_bn", SETTINGS, lambda line: None)


def test_who_ran_out_of_memory():
    with pytest.raises(RuntimeError) as torchs:
        torch.empty(10**15)
    with pytest.raises(jax.errors.JaxRuntimeError) as jaxs:
        jnp.ones((10**7, 10**7)).block_until_ready()
    assert who_ran_out(torchs.value) == "PyTorch"
    assert who_ran_out(jaxs.value) == "JAX"
    assert who_ran_out(MemoryError()) == "Python"
    assert who_ran_out(torch.OutOfMemoryError("CUDA out of memory. Tried ...")) == "PyTorch"
    cublas = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`")
    assert who_ran_out(cublas) == "PyTorch"
    assert who_ran_out(RuntimeError("shapes do not match")) is None
    assert who_ran_out(InputError("out of memory")) is None


def test_other_errors_are_not_taken_for_it(monkeypatch):
    def broken(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr(programs, "inference", broken)
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        measure_model("resnet_20_bn", SETTINGS, lambda line: None)


def test_torch_compile_that_fails_is_left_out(monkeypatch):
    inference, said = torch_programs.inference, []

    def eager_only(*arguments, compiled):
        if compiled:
            raise RuntimeError("no C++ compiler")
        return inference(*arguments, compiled=False)

    monkeypatch.setattr(torch_programs, "inference", eager_only)
    settings = dataclasses.replace(SETTINGS, against_torch=True, torch_compile=True)
    result = measure_model("resnet_20_bn", settings, said.append)
    assert result.torch.keys() == {"eager"}
    assert "torch.compile failed, only eager PyTorch is compared: no C++ compiler" in said[0]


def test_the_peak_is_that_of_the_chip(monkeypatch):
    assert measure_model("resnet_20_bn", SETTINGS, print).utilisation is None
    monkeypatch.setitem(PEAK_FLOPS, jax.devices()[0].device_kind, 1e12)
    result = measure_model("resnet_20_bn", SETTINGS, print)
    assert result.utilisation == pytest.approx(result.tflops)


@pytest.mark.parametrize(("precision", "tf32"), [(None, True), ("highest", False)])
def test_pytorch_computes_as_exactly_as_jax(precision, tf32):
    with jax.default_matmul_precision(precision):
        torch_programs.inference("resnet_20_bn", 1, 16, "float32", compiled=False)
        described = torch_programs.describe()["torch_tf32"]
    assert described == ("allowed" if tf32 else "forbidden")
    assert torch.backends.cuda.matmul.allow_tf32 == tf32
    assert torch.backends.cudnn.allow_tf32 == tf32
    assert torch.backends.cudnn.benchmark


def test_nothing_comes_from_the_compilation_cache():
    events = []

    def listen(event, **_):
        events.append(event)

    def function(x):
        return x + 1

    asked = "/jax/compilation_cache/compile_requests_use_cache"
    jax.monitoring.register_event_listener(listen)
    try:
        programs._compiled(jax.jit(function), np.ones(3))
        assert asked not in events
        jax.jit(function).lower(np.ones(4)).compile()
        assert asked in events
    finally:
        jax.monitoring.unregister_event_listener(listen)


def test_a_profile(tmp_path):
    settings = dataclasses.replace(SETTINGS, profile=str(tmp_path))
    measure_model("resnet_20_bn", settings, print)
    assert list((tmp_path / "resnet_20_bn").rglob("*.xplane.pb"))
