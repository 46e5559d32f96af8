"""benchmark.py at small sizes: what it writes; never how fast anything is."""

import csv
import dataclasses
import json
import os
import subprocess
import sys

import jax
import pytest
from absl import flags
from absl.testing import flagsaver

import benchmark
from an_jax.benchmark import programs
from an_jax.benchmark.throughput import Settings, Throughput, csv_text, measure_model
from an_jax.benchmark.timing import measure
from an_jax.errors import InputError
from tests.processes import ROOT

SETTINGS = Settings("infer", 4, None, "float32", False, False, 1, 0.0)
RESULT = Throughput(
    *("resnet_50_bn", "infer", "float32", 224, 256, 1234.5678, 207.36, (200.0, 210.0)),
    *(25.557, 4.111, 11.112, 10.1, 10.0, 2.0, {}, None),
)


@pytest.fixture
def command(tmp_path):
    """Runs benchmark.py in this process; returns what it wrote as JSON."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()

    def run(**given):
        file = tmp_path / "figures.json"
        with flagsaver.flagsaver(repeats=1, seconds=0.0, json=str(file), **given):
            benchmark.run()
        return json.loads(file.read_text())

    return run


def test_what_is_compared_runs_by_turns():
    calls = []
    runs = {name: lambda n, name=name: calls.append((name, n)) for name in ("a", "b")}
    times = measure(runs, repeats=3, seconds=0.0)
    assert [name for name, _ in calls[-6:]] == ["a", "b"] * 3
    assert times.keys() == {"a", "b"}
    assert times["a"].least <= times["a"].median <= times["a"].largest


@pytest.mark.parametrize("mode", ["infer", "train"])
def test_throughput_beside_pytorch(command, tmp_path, mode):
    table = tmp_path / "table.csv"
    found = command(
        mode=mode, models=["resnet_20_an_bn1"], batch_size=2, against="torch", csv=str(table)
    )
    assert found["machine"]["jax"] == jax.__version__
    assert {"device", "processor", "cores", "torch", "torch_threads"} <= found["machine"].keys()
    (result,) = found["results"]
    assert (result["batch_size"], result["img_size"], result["dtype"]) == (2, 16, "float32")
    assert result["samples_per_sec"] == pytest.approx(2e3 / result["step_time"])
    assert result["ratio"] == pytest.approx(result["torch"]["eager"] / result["step_time"])
    assert result["compile_seconds"] > 0
    assert result["memory_gib"] > 0
    (row,) = csv.DictReader(table.read_text().splitlines())
    assert row["model"] == "resnet_20_an_bn1"
    assert row[f"{mode}_samples_per_sec"] == f"{result['samples_per_sec']:.2f}"


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


def test_out_of_memory_halves_the_batch(monkeypatch):
    tried, said = [], []
    inference = programs.inference

    def limited(name, batch_size, *rest):
        tried.append(batch_size)
        if batch_size > 1:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return inference(name, batch_size, *rest)

    monkeypatch.setattr(programs, "inference", limited)
    assert measure_model("resnet_20_bn", SETTINGS, said.append).batch_size == 1
    assert tried == [4, 2, 1]
    assert said[-1] == "resnet_20_bn: out of memory; trying batches of 1"


def test_not_even_one_image_fits(monkeypatch):
    def full(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr(programs, "inference", full)
    with pytest.raises(InputError, match="out of memory even with one image"):
        measure_model("resnet_20_bn", SETTINGS, lambda line: None)


def test_other_errors_are_not_taken_for_it(monkeypatch):
    def broken(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr(programs, "inference", broken)
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        measure_model("resnet_20_bn", SETTINGS, lambda line: None)


def test_torch_compile_that_fails_is_left_out(monkeypatch):
    from an_jax.benchmark import torch_programs

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


def test_patterns_and_unknown_names(command):
    with flagsaver.flagsaver(models=["mobilenetv2_*", "resnet_20_bn"]):
        assert benchmark.names() == ["mobilenetv2_an", "mobilenetv2_bn", "resnet_20_bn"]
    with pytest.raises(InputError, match="unknown model 'resnet_50_xx'"):
        command(models=["resnet_50_xx"])


def test_csv_is_for_throughput(command, tmp_path):
    with pytest.raises(InputError, match="--csv is for the modes infer and train"):
        command(mode="data", csv=str(tmp_path / "table.csv"))


def test_the_gpus_script_at_a_small_size(tmp_path):
    small = {"MODELS": "resnet_20_bn", "AOGNET": "resnet_20_an_bn1", "BATCH_SIZE": "2"}
    small |= {"DTYPE": "float32", "REPEATS": "1", "DURATION": "0", "PYTHON": sys.executable}
    script = ROOT / "benchmarks/gpu.sh"
    done = subprocess.run(
        [script, tmp_path], env=os.environ | small, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for name in ("infer_models", "infer_aognet", "train_models", "train_aognet"):
        assert json.loads((tmp_path / f"{name}.json").read_text())["results"][0]["ratio"] > 0
        assert len((tmp_path / f"{name}.csv").read_text().splitlines()) == 2


def test_synthetic_input_needs_neither_tensorflow_nor_torch():
    """In a process that cannot import them."""
    program = (
        "import sys; sys.modules['tensorflow'] = sys.modules['torch'] = None;"
        "import benchmark; from absl import app; app.run(benchmark.main)"
    )
    arguments = ["--models=resnet_20_bn", "--batch_size=2", "--repeats=1", "--seconds=0"]
    command = [sys.executable, "-c", program, *arguments, "--mode=train"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "resnet_20_bn             train float32 16 px, batch 2:" in done.stdout
