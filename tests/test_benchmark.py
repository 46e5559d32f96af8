"""benchmark.py at small sizes: what it writes; never how fast anything is."""

import csv
import json
import os
import subprocess
import sys

import jax
import pytest
from absl import flags
from absl.testing import flagsaver

import benchmark
from an_jax.benchmark import throughput, torch_programs
from an_jax.benchmark.timing import measure
from an_jax.errors import InputError
from configs import imagenet
from tests.processes import ROOT


@pytest.fixture
def command(tmp_path):
    """Runs benchmark.py in this process; returns what it wrote as JSON."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()

    def run(**given):
        file = tmp_path / "figures.json"
        given |= {"repeats": 1, "json": str(file)}
        if given.get("mode") != "startup":
            given["seconds"] = 0.0
        with flagsaver.flagsaver(**given):
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
    assert found["machine"]["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    (result,) = found["results"]
    assert (result["batch_size"], result["img_size"], result["dtype"]) == (2, 16, "float32")
    assert result["samples_per_sec"] == pytest.approx(2e3 / result["step_time"])
    eager = result["torch"]["eager"]
    assert result["ratio"] == pytest.approx(eager["step_time"] / result["step_time"])
    least, largest = result["ratio_range"]
    assert least <= result["ratio"] <= largest
    for step in (result, eager):
        least, largest = step["step_time_range"]
        assert least <= step["step_time"] <= largest
    assert result["compile_seconds"] > 0
    assert eager["compile_seconds"] is None
    assert result["memory_gib"] > 0
    (row,) = csv.DictReader(table.read_text().splitlines())
    assert row["model"] == "resnet_20_an_bn1"
    assert row[f"{mode}_samples_per_sec"] == f"{result['samples_per_sec']:.2f}"


def test_patterns_and_unknown_names(command):
    with flagsaver.flagsaver(models=["mobilenetv2_*", "resnet_20_bn"]):
        assert benchmark.names() == ["mobilenetv2_an", "mobilenetv2_bn", "resnet_20_bn"]
    with pytest.raises(InputError, match="unknown model 'resnet_50_xx'"):
        command(models=["resnet_50_xx"])


def test_no_models(command):
    with pytest.raises(InputError, match="--models names none"):
        command(models=[])


def test_missing_twins_are_told_before_anything_is_measured(monkeypatch, command):
    monkeypatch.setattr(throughput, "measure_model", None)
    with pytest.raises(InputError, match="no PyTorch twin of densenet_121_bn"):
        command(models=["resnet_20_bn", "densenet_121_bn"], against="torch")


def test_pytorch_on_another_device(monkeypatch):
    monkeypatch.setattr(torch_programs, "DEVICE", "cuda")
    with pytest.raises(InputError, match="JAX runs on cpu, PyTorch on cuda"):
        torch_programs.check_device()


def test_what_was_measured_before_an_error_is_kept(monkeypatch, command, tmp_path):
    measure, table = throughput.measure_model, tmp_path / "table.csv"

    def limited(name, *rest):
        if name == "resnet_20_an_bn1":
            raise InputError("out of memory")
        return measure(name, *rest)

    monkeypatch.setattr(throughput, "measure_model", limited)
    with pytest.raises(InputError, match="out of memory"):
        command(models=["resnet_20_bn", "resnet_20_an_bn1"], batch_size=2, csv=str(table))
    (result,) = json.loads((tmp_path / "figures.json").read_text())["results"]
    assert result["model"] == "resnet_20_bn"
    assert len(table.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("asked", "ignored", "value"),
    [
        ("data", "against", "torch"),
        ("data", "csv", "table.csv"),
        ("evaluate", "image_size", 32),
        ("startup", "dtype", "float32"),  # its default
        ("train", "config", imagenet.get_config()),
    ],
)
def test_flags_that_a_mode_ignores_are_refused(command, asked, ignored, value):
    with pytest.raises(InputError, match=f"--{ignored} has no effect with --mode={asked}"):
        command(mode=asked, **{ignored: value})


def test_flags_that_a_plan_ignores_are_refused(command):
    given = {"plan": "v5e:4x4", "config": imagenet.get_config(), "mode": "train"}
    with (
        flagsaver.flagsaver(**given),
        pytest.raises(InputError, match="--mode has no effect with --plan"),
    ):
        benchmark.run_plan()


def test_torch_compile_needs_torch(command):
    with pytest.raises(InputError, match="--torch_compile needs --against=torch"):
        command(torch_compile=True)


def run_gpu_script(tmp_path, python, **settings):
    """benchmarks/gpu.sh, with a Python that is the shell script `python`."""
    interpreter = tmp_path / "python"
    interpreter.write_text(f"#!/bin/sh\n{python}\n")
    interpreter.chmod(0o755)
    settings |= {"PYTHON": str(interpreter), "REPEATS": "1", "DURATION": "0", "BATCH_SIZE": "2"}
    settings["OMP_NUM_THREADS"] = "1"  # PyTorch's threads spin, which takes long on busy cores
    command = [ROOT / "benchmarks/gpu.sh", "out"]
    return subprocess.run(
        command, cwd=tmp_path, env=os.environ | settings, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("flag", "twins"),
    [
        ("--notorch_compile", {"eager"}),
        # On a CPU, it takes minutes.
        pytest.param("--torch_compile", {"eager", "compile"}, marks=pytest.mark.slow),
    ],
)
def test_the_gpus_script_at_a_small_size(tmp_path, flag, twins):
    python = f'exec "{sys.executable}" "$@" {flag}'
    limits = {"SECONDS_EACH": "600", "SECONDS_ALL": "1200"}
    done = run_gpu_script(tmp_path, python, MODELS="resnet_20_bn", **limits)
    assert done.returncode == 0, done.stderr
    for mode in ("train", "infer"):
        file = tmp_path / f"out/{mode}_resnet_20_bn.json"
        (result,) = json.loads(file.read_text())["results"]
        assert (result["mode"], result["dtype"]) == (mode, "bfloat16")
        assert result["torch"].keys() == twins
    assert list((tmp_path / "out/profile/resnet_20_bn").rglob("*.trace.json.gz"))


def test_the_gpus_script_goes_on_after_a_failure(tmp_path):
    python = """case $* in *train*resnet_50_an*) exit 3 ;; *resnet_50_bn*) exec sleep 60 ;; esac
        echo "$*" """
    done = run_gpu_script(tmp_path, python, SECONDS_EACH="1")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "gpu.sh: train resnet_50_an_bn2 failed: status 3 (124: out of time)",
        "gpu.sh: train resnet_50_bn failed: status 124 (124: out of time)",
        "gpu.sh: infer resnet_50_bn failed: status 124 (124: out of time)",
    ]
    ran = [(line.split()[1:3], "--torch_compile" in line) for line in done.stdout.splitlines()]
    assert ran == [
        (["--mode=infer", "--models=resnet_50_an_bn2"], True),
        (["--mode=train", "--models=aognet_12m_an"], False),
        (["--mode=infer", "--models=aognet_12m_an"], False),
        (["--mode=train", "--models=mobilenetv2_an"], True),
        (["--mode=infer", "--models=mobilenetv2_an"], True),
    ]


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
