"""Throughput: lack of memory, fair settings, figures and their formats."""

import dataclasses
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from an_jax.benchmark import programs
from an_jax.benchmark.chips import PEAK_FLOPS
from an_jax.benchmark.programs import Program
from an_jax.benchmark.pytorch import programs as torch_programs
from an_jax.benchmark.pytorch.models import create_torch_model
from an_jax.benchmark.throughput import Settings, StepTimes, Throughput, measure_model
from an_jax.benchmark.throughput_report import csv_text, describe
from an_jax.errors import InputError
from an_jax.out_of_memory import who_ran_out

pytestmark = pytest.mark.usefixtures("one_torch_thread")

SETTINGS = Settings("infer", 4, None, "float32", False, False, 1, 0.0, None)
STEP = StepTimes(
    step_time=207.36, step_time_range=(200.0, 210.0), compile_seconds=10.0, memory_gib=2.0
)
RESULT = Throughput(
    **vars(STEP),
    **{"model": "resnet_50_bn", "mode": "infer", "dtype": "float32", "img_size": 224},
    **{"batch_size": 256, "samples_per_sec": 1234.5678, "param_count": 25.557, "gmacs": 4.111},
    **{"macts": 11.112, "tflops": 10.1, "utilization": None, "torch": {}},
)


def do_nothing(n):
    """A program's run of n steps."""


@pytest.fixture
def no_op(monkeypatch):
    """Replaces inference by a program that does nothing."""
    program = Program(do_nothing, compile_seconds=1.0, memory_bytes=2**30)
    monkeypatch.setattr(programs, "inference", lambda *_: program)


def test_csv_has_timms_columns_and_formats():
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


def test_description():
    full = dataclasses.replace(
        RESULT,
        utilization=0.312,
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
    class Arrays:
        """Stands for arrays that only the garbage collector frees."""

        def __init__(self):
            self.cycle = self

    sizes, lines, references = [], [], []

    def limited(name, batch_size, *rest):
        assert all(reference() is None for reference in references)  # all is freed
        sizes.append(batch_size)
        if batch_size > 1:
            references.append(weakref.ref(Arrays()))
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return Program(do_nothing, None, None)

    monkeypatch.setattr(programs, "inference", limited)
    assert measure_model("resnet_20_bn", SETTINGS, lines.append).batch_size == 1
    assert sizes == [4, 2, 1]
    assert lines[-1] == "resnet_20_bn: JAX is out of memory; trying batches of 1"


@pytest.mark.parametrize(
    ("message", "error", "match"),
    [
        ("RESOURCE_EXHAUSTED: Out of memory", InputError, "JAX is out of memory even with one"),
        ("INTERNAL: other", jax.errors.JaxRuntimeError, "INTERNAL: other"),
    ],
)
def test_errors_that_a_smaller_batch_does_not_mend(monkeypatch, message, error, match):
    def fail(*_):
        raise jax.errors.JaxRuntimeError(message)

    monkeypatch.setattr(programs, "inference", fail)
    with pytest.raises(error, match=match):
        measure_model("resnet_20_bn", SETTINGS, print)


def test_who_ran_out_of_memory():
    with pytest.raises(RuntimeError) as torch_error:
        torch.empty(10**15)
    with pytest.raises(jax.errors.JaxRuntimeError) as jax_error:
        jnp.ones((10**7, 10**7)).block_until_ready()
    assert who_ran_out(torch_error.value) == "PyTorch"
    assert who_ran_out(jax_error.value) == "JAX"
    assert who_ran_out(MemoryError()) == "Python"
    assert who_ran_out(torch.OutOfMemoryError("CUDA out of memory. Tried ...")) == "PyTorch"
    cublas = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`")
    assert who_ran_out(cublas) == "PyTorch"
    assert who_ran_out(RuntimeError("shapes do not match")) is None
    assert who_ran_out(InputError("out of memory")) is None


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_a_mode_has_its_programs(monkeypatch, mode):
    built = []

    def make(side):
        def build(*arguments, **compiled):
            built.append((side, arguments, compiled))
            return Program(do_nothing, None, None)

        return build

    monkeypatch.setattr(programs, mode, make("jax"))
    monkeypatch.setattr(torch_programs, mode, make("torch"))
    mode = {"inference": "infer", "training": "train"}[mode]
    settings = dataclasses.replace(SETTINGS, mode=mode, against_torch=True, torch_compile=True)
    result = measure_model("resnet_20_bn", settings, print)
    arguments = ("resnet_20_bn", 4, 16, "float32")
    torchs = [("torch", arguments, {"use_compile": value}) for value in (False, True)]
    assert built == [("jax", arguments, {}), *torchs]
    assert result.torch.keys() == {"eager", "compile"}
    operations = {"infer": 2, "train": 6}[mode]
    assert result.tflops == pytest.approx(operations * result.gmacs * 4 / result.step_time)


def test_torch_compile_that_fails_is_left_out(monkeypatch, no_op):
    def eager_only(*arguments, use_compile):
        if use_compile:
            raise RuntimeError("no C++ compiler")
        return Program(do_nothing, None, None)

    monkeypatch.setattr(torch_programs, "inference", eager_only)
    settings = dataclasses.replace(SETTINGS, against_torch=True, torch_compile=True)
    lines = []
    result = measure_model("resnet_20_bn", settings, lines.append)
    assert result.torch.keys() == {"eager"}
    assert "torch.compile failed, only eager PyTorch is compared: no C++ compiler" in lines[0]


def test_utilization_is_relative_to_the_chips_peak(monkeypatch, no_op):
    assert measure_model("resnet_20_bn", SETTINGS, print).utilization is None
    monkeypatch.setitem(PEAK_FLOPS, jax.devices()[0].device_kind, 1e12)
    result = measure_model("resnet_20_bn", SETTINGS, print)
    assert result.utilization == pytest.approx(result.tflops)


def test_a_profile_is_written(tmp_path, no_op):
    settings = dataclasses.replace(SETTINGS, profile=str(tmp_path))
    measure_model("resnet_20_bn", settings, print)
    assert list((tmp_path / "resnet_20_bn").rglob("*.xplane.pb"))


@pytest.mark.parametrize(("precision", "tf32"), [(None, True), ("highest", False)])
def test_pytorch_computes_as_exactly_as_jax(precision, tf32):
    with jax.default_matmul_precision(precision):
        torch_programs.inference("resnet_20_bn", 1, 16, "float32", use_compile=False)
        described = torch_programs.describe()["torch_tf32"]
    assert described == ("allowed" if tf32 else "forbidden")
    assert torch.backends.cuda.matmul.allow_tf32 == tf32
    assert torch.backends.cudnn.allow_tf32 == tf32
    assert torch.backends.cudnn.benchmark


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_pytorchs_training_step(monkeypatch, dtype):
    models = []

    def create(*arguments):
        models.append(create_torch_model(*arguments))
        return models[-1]

    monkeypatch.setattr(torch_programs, "create_torch_model", create)
    program = torch_programs.training("resnet_20_bn", 2, 16, dtype, use_compile=False)
    assert program.compile_seconds is None
    before = models[0].fc.weight.detach().clone()
    program.run(2)
    assert models[0].bn1.num_batches_tracked == 3  # the first step ran before
    assert not torch.equal(models[0].fc.weight, before)


def test_the_compilation_cache_is_not_used():
    is_enabled = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", True)
    events = []

    def listen(event, **_):
        events.append(event)

    def function(x):
        return x + 1

    request = "/jax/compilation_cache/compile_requests_use_cache"
    jax.monitoring.register_event_listener(listen)
    try:
        programs._compile(jax.jit(function), np.ones(3))
        assert request not in events
        jax.jit(function).lower(np.ones(4)).compile()
        assert request in events
    finally:
        jax.monitoring.unregister_event_listener(listen)
        jax.config.update("jax_enable_compilation_cache", is_enabled)
