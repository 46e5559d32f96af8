"""benchmark.py at small sizes: flags, tables and files. Tests assert nothing about speed."""

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
from an_jax.benchmark import throughput
from an_jax.benchmark.pytorch import programs as torch_programs
from an_jax.benchmark.timing import measure
from an_jax.errors import InputError
from configs import imagenet
from tests.processes import ROOT
from tests.test_throughput import RESULT


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Runs benchmark.py in this process; returns what it wrote as JSON to the home directory."""
    monkeypatch.setenv("HOME", str(tmp_path))
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()

    def run(**given):
        given = {"json": "~/figures.json"} | given | {"repeats": 1}
        if given.get("mode") != "startup":
            given["seconds"] = 0.0
        with flagsaver.flagsaver(**given):
            benchmark.run()
        return json.loads((tmp_path / "figures.json").read_text())

    return run


def test_programs_take_turns():
    calls = []
    runs = {name: lambda n, name=name: calls.append((name, n)) for name in ("a", "b")}
    times = measure(runs, repeats=3, seconds=0.0)
    assert [name for name, _ in calls[-6:]] == ["a", "b"] * 3
    assert times.keys() == {"a", "b"}
    assert times["a"].least <= times["a"].median <= times["a"].largest


def check_result(result):
    assert (result["batch_size"], result["img_size"], result["dtype"]) == (2, 16, "float32")
    assert result["samples_per_sec"] == pytest.approx(2e3 / result["step_time"])
    for step in (result, *result["torch"].values()):
        least, largest = step["step_time_range"]
        assert least <= step["step_time"] <= largest
    assert result["compile_seconds"] > 0
    assert result["memory_gib"] > 0


@pytest.mark.usefixtures("one_torch_thread")
def test_inference_beside_pytorch(command, tmp_path):
    table = tmp_path / "table.csv"
    figures = command(models=["resnet_20_an_bn1"], batch_size=2, against="torch", csv=str(table))
    assert figures["machine"]["jax"] == jax.__version__
    assert {"device", "processor", "cores", "torch", "torch_threads"} <= figures["machine"].keys()
    assert figures["machine"]["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    (result,) = figures["results"]
    check_result(result)
    eager = result["torch"]["eager"]
    assert eager["compile_seconds"] is None
    assert result["ratio"] == pytest.approx(eager["step_time"] / result["step_time"])
    least, largest = result["ratio_range"]
    assert least <= result["ratio"] <= largest
    (row,) = csv.DictReader(table.read_text().splitlines())
    assert row["model"] == "resnet_20_an_bn1"
    assert row["infer_samples_per_sec"] == f"{result['samples_per_sec']:.2f}"


def test_training_needs_neither_tensorflow_nor_torch(tmp_path):
    """The command trains in a process that cannot import TensorFlow and PyTorch."""
    program = (
        "import sys; sys.modules['tensorflow'] = sys.modules['torch'] = None;"
        "import benchmark; from absl import app; app.run(benchmark.main)"
    )
    file = tmp_path / "figures.json"
    arguments = ["--mode=train", "--models=resnet_20_bn", "--batch_size=2", f"--json={file}"]
    command = [sys.executable, "-c", program, *arguments, "--repeats=1", "--seconds=0"]
    environment = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # compiles faster
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "resnet_20_bn             train float32 16 px, batch 2:" in done.stdout
    (result,) = json.loads(file.read_text())["results"]
    check_result(result)
    assert (result["mode"], result["torch"], result["ratio"]) == ("train", {}, None)


def test_patterns_and_unknown_names(command):
    with flagsaver.flagsaver(models=["mobilenetv2_*", "resnet_20_bn"]):
        assert benchmark.model_names() == ["mobilenetv2_an", "mobilenetv2_bn", "resnet_20_bn"]
    with pytest.raises(InputError, match="unknown model 'resnet_50_xx'"):
        command(models=["resnet_50_xx"])


def test_no_models(command):
    with pytest.raises(InputError, match="--models is empty"):
        command(models=[])


def test_models_without_a_counterpart_are_refused_before_any_measurement(monkeypatch, command):
    monkeypatch.setattr(throughput, "measure_model", None)
    with pytest.raises(InputError, match="densenet_121_bn has no PyTorch counterpart"):
        command(models=["resnet_20_bn", "densenet_121_bn"], against="torch")


def test_pytorch_on_another_device(monkeypatch):
    monkeypatch.setattr(torch_programs, "DEVICE", "cuda")
    with pytest.raises(InputError, match="JAX runs on cpu, PyTorch on cuda"):
        torch_programs.check_device()


def test_results_before_an_error_are_kept(monkeypatch, command, tmp_path):
    def measure_first(name, *_):
        if name == "resnet_20_an_bn1":
            raise InputError("out of memory")
        return RESULT

    table = tmp_path / "table.csv"
    monkeypatch.setattr(throughput, "measure_model", measure_first)
    with pytest.raises(InputError, match="out of memory"):
        command(models=["resnet_20_bn", "resnet_20_an_bn1"], csv=str(table))
    (result,) = json.loads((tmp_path / "figures.json").read_text())["results"]
    assert result["model"] == RESULT.model
    assert len(table.read_text().splitlines()) == 2


def test_the_first_line_names_the_devices(monkeypatch, command, capsys):
    """A second measurement replaces the files of the first."""
    monkeypatch.setattr(throughput, "measure_model", lambda *_: RESULT)
    for _ in range(2):
        command(models=["resnet_20_bn"], csv="~/table.csv")
        first = capsys.readouterr().out.splitlines()[0]
        assert first == "using 8 devices (cpu), 1 process"


@pytest.mark.parametrize("flag", ["json", "csv"])
@pytest.mark.parametrize("content", ['{"machine": "mine"}', "model,infer_samples_per_sec\n"])
def test_files_of_another_origin_are_not_replaced(monkeypatch, command, tmp_path, flag, content):
    monkeypatch.setattr(throughput, "measure_model", None)
    (tmp_path / "mine").write_text(content)
    with pytest.raises(InputError, match=r"mine exists and was not written by benchmark\.py"):
        command(models=["resnet_20_bn"], **{flag: str(tmp_path / "mine")})
    assert (tmp_path / "mine").read_text() == content


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
    """Runs benchmarks/gpu.sh with the shell script `python` as its Python."""
    interpreter = tmp_path / "python"
    interpreter.write_text(f"#!/bin/sh\n{python}\n")
    interpreter.chmod(0o755)
    settings |= {"PYTHON": str(interpreter), "REPEATS": "1", "DURATION": "0", "BATCH_SIZE": "2"}
    settings["OMP_NUM_THREADS"] = "1"  # PyTorch's threads slow one another down on busy cores
    return subprocess.run(
        [ROOT / "benchmarks/gpu.sh", "out"],
        cwd=tmp_path,
        env=os.environ | settings,
        capture_output=True,
        text=True,
    )


def test_gpu_script_passes_valid_flags(monkeypatch, tmp_path):
    done = run_gpu_script(tmp_path, 'echo "$@"', MODELS="resnet_20_bn")
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr(throughput, "measure_model", lambda *_: RESULT)
    commands = [line.split() for line in done.stdout.splitlines()]
    for mode, (script, *arguments) in zip(("train", "infer"), commands, strict=True):
        assert script == "benchmark.py"
        with flagsaver.flagsaver():
            benchmark.FLAGS([script, *arguments])
            assert (benchmark.FLAGS.mode, benchmark.FLAGS.dtype) == (mode, "bfloat16")
            assert benchmark.FLAGS.torch_compile
            benchmark.run()
        assert (tmp_path / f"out/{mode}_resnet_20_bn.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flag", "twins"),
    [("--notorch_compile", {"eager"}), ("--torch_compile", {"eager", "compile"})],
)
def test_gpu_script_at_a_small_size(tmp_path, flag, twins):
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


def test_gpu_script_goes_on_after_a_failure(tmp_path):
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
