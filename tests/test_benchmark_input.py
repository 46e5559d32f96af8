"""benchmark.py on input, evaluation and start-up: what counts; never how fast anything is."""

import gc
import json
import os
import subprocess
import sys
import types

import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from tensorflow.python.data.ops.iterator_ops import OwnedIterator

import benchmark
from an_jax.benchmark import by_pillow, evaluation, machine, pipelines, startup, timing
from an_jax.benchmark.photographs import photographs
from an_jax.benchmark.timing import STARTED, Times
from an_jax.errors import InputError
from tests import pictures
from tests.processes import ROOT

NAME = "resnet_20_an_bn1"


@pytest.fixture
def folder(tmp_path):
    """Of two JPEGs."""
    path = tmp_path / "images"
    path.mkdir()
    for i, photograph in enumerate(pictures.photographs()):
        (path / f"{i}.jpg").write_bytes(pictures.encode(photograph, quality=90))
    return path


@pytest.fixture
def given(folder):
    """Sets flags."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    return lambda **values: flagsaver.flagsaver(images=str(folder), **values)


def test_neither_the_start_nor_what_is_made_ahead_counts(monkeypatch):
    """By a clock that only the programs move."""
    now, calls = 0.0, []

    def program(name, start, step):
        def run(n):
            nonlocal now
            now += start + n * step
            calls.append((name, n))

        return run

    monkeypatch.setattr(timing, "time", types.SimpleNamespace(perf_counter=lambda: now))
    programs = {"slow to start": program("a", 5.0, 0.25), "not": program("b", 0.0, 0.5)}
    times = timing.measure_started(programs, repeats=3, seconds=3.0)
    assert times == {"slow to start": Times((0.25,) * 3), "not": Times((0.5,) * 3)}
    a, b = [("a", STARTED), ("a", STARTED + 16)], [("b", STARTED), ("b", STARTED + 8)]
    assert calls[-12:] == [*a, *b] * 3


def test_steps_too_short_to_be_timed(monkeypatch):
    """Where a start that varies hides them, by a clock that only the program moves."""
    now, starts = 0.0, iter(range(100, 0, -1))

    def run(n):
        nonlocal now
        now += next(starts) + 0.01 * n

    monkeypatch.setattr(timing, "time", types.SimpleNamespace(perf_counter=lambda: now))
    with pytest.raises(InputError, match="fast: more steps took less time: use a longer --sec"):
        timing.measure_started({"fast": run}, repeats=1, seconds=-9.0)


def test_figures_keep_their_spread():
    ours, others = Times((0.25, 0.5, 0.2)), Times((0.5, 0.5, 0.5))
    assert timing.rates("rate", ours, 2) == {"rate": 8.0, "rate_range": (4.0, 10.0)}
    assert timing.ratio("ratio", ours, others) == {"ratio": 2.0, "ratio_range": (1.0, 2.5)}


def test_a_pipeline_runs_anew_and_to_its_end():
    events = []

    def batches(n):
        events.append(f"begins {n}")
        yield from range(n)
        events.append("ends")

    for n in (3, 5):
        pipelines.run_through(batches, n)
    assert events == ["begins 3", "ends", "begins 5", "ends"]


@pytest.mark.parametrize("batches", [pipelines.evaluation_batches, pipelines.training_batches])
def test_nothing_is_left_of_a_pipeline(folder, batches):
    def iterators():
        return sum(type(x) is OwnedIterator for x in gc.get_objects())

    before = iterators()
    gc.disable()
    try:
        pipelines.run_through(lambda n: batches(sorted(folder.iterdir()), n), 2)
        assert iterators() == before
    finally:
        gc.enable()


def test_what_is_compared_is_the_same_work(folder):
    files = sorted(folder.iterdir())
    shape = (pipelines.BATCH_SIZE, 224, 224, 3)
    settings = (files, 2, pipelines.BATCH_SIZE, pipelines.PREPROCESSING)
    ours = [batch["image"] for batch in pipelines.evaluation_batches(files, 2)]
    np.testing.assert_array_equal(ours, list(by_pillow.evaluation_batches(*settings)))
    assert [images.shape for images in ours] == [shape] * 2
    ours = [batch.images for batch in pipelines.training_batches(files, 2)]
    pillows = list(by_pillow.training_batches(*settings, pipelines.CROP_SCALE))
    assert [images.shape for images in [*ours, *pillows]] == [shape] * 4
    assert np.unique(np.concatenate(pillows), axis=0).shape[0] == 2 * pipelines.BATCH_SIZE


def cores_as_times(files, with_pillow, repeats, seconds):
    """What stands for a measurement."""
    times = Times((1.0 * len(os.sched_getaffinity(0)),) * repeats)
    names = ["evaluation", "training"]
    return dict.fromkeys(names + [f"{name}, Pillow" for name in names if with_pillow], times)


def test_each_number_of_cores_has_a_process(monkeypatch, given, capsys):
    monkeypatch.setattr(pipelines, "_measure", cores_as_times)
    with given(repeats=2):
        rows = benchmark.run_data()
    for row in rows:
        rate = pipelines.BATCH_SIZE / row["cores"]
        assert row["samples_per_sec"] == rate
        assert row["samples_per_sec_range"] == (rate, rate)
        assert ("ratio" in row) == ("pillow_samples_per_sec_range" in row) == (row["cores"] == 1)
    assert {row["cores"] for row in rows} >= {1, len(os.sched_getaffinity(0))}
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(rows)
    assert lines[0] == "evaluation on 1 cores: 32 img/s; Pillow 32; ratio 1.00 (1.00 to 1.00)"


def test_input_pipelines_beside_pillow(monkeypatch, folder):
    def measure(programs, *, repeats, seconds):
        for run in programs.values():
            run(1)
        return dict.fromkeys(programs)

    monkeypatch.setattr(pipelines, "measure_started", measure)
    measured = pipelines._measure(sorted(folder.iterdir()), True, 1, 0.0)
    assert list(measured) == ["evaluation", "training", "evaluation, Pillow", "training, Pillow"]


def test_processes_that_cannot_be_bound(monkeypatch):
    monkeypatch.delattr(os, "sched_setaffinity")
    with pytest.raises(InputError, match="--mode=data needs Linux"):
        pipelines.measure_pipelines(None, 1, 0.0, print)


def test_a_folder_without_photographs(tmp_path):
    with pytest.raises(InputError, match="no JPEGs in"):
        photographs(str(tmp_path), tmp_path)


@pytest.mark.parametrize("slower", ["pipeline", "inference"])
def test_evaluation_beside_its_parts(unset, monkeypatch, given, slower):
    def measure(programs, *, repeats, seconds):
        assert jax.config.jax_default_matmul_precision == "highest"  # as in evaluate.py
        for run in programs.values():
            run(1)
        times = dict.fromkeys(programs, Times((0.25, 0.25, 0.25)))
        return times | {slower: Times((0.5, 0.5, 0.5)), "evaluation": Times((0.5, 1.0, 0.625))}

    monkeypatch.setattr(evaluation, "measure_started", measure)
    with given(models=[NAME], batch_size=8, dtype="float32"):
        (found,) = benchmark.run_evaluate()
    rates = {"pipeline": 32.0, "inference": 32.0, slower: 16.0, "evaluation": 12.8}
    assert found.items() >= ({"model": NAME, "share": 0.8, "bound": 2 / 3} | rates).items()
    assert found["evaluation_range"] == (8.0, 16.0)
    assert found["share_range"] == (0.5, 1.0)


def test_the_device_is_free_during_the_runs(monkeypatch, given):
    order = []
    monkeypatch.setattr(benchmark, "run_startup", lambda: order.append("runs") or [{}])
    monkeypatch.setattr(machine, "describe_machine", lambda with_torch: order.append("jax") or {})
    with given(mode="startup"):
        benchmark.run()
    assert order == ["runs", "jax"]


def test_the_checkpoint_is_made_elsewhere(folder):
    program = (
        "import benchmark, jax; from an_jax.benchmark import startup;"
        "startup.run = lambda root, number: print(len(list(root.rglob('*.JPEG')))) or 1.0;"
        f"benchmark.FLAGS(['', '--models={NAME}', '--images={folder}', '--repeats=2']);"
        "print(list(benchmark.run_startup()));"
        "assert not jax._src.xla_bridge.backends_are_initialized()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        *["16"] * 3,
        f"{NAME}: a run on one batch takes 1.0 s, then, compiled, 1.0 s (1.0 to 1.0)",
        str([{"model": NAME, "cold": 1.0, "warm": 1.0, "warm_range": (1.0, 1.0)}]),
    ]


def test_a_failing_run_is_reported(monkeypatch, tmp_path):
    with pytest.raises(InputError, match=r"evaluate\.py failed: .*no checkpoint at"):
        startup.run(tmp_path, 0)


@pytest.mark.slow
def test_a_first_run_compiles_what_the_next_uses(monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    startup.prepare(tmp_path, NAME, None)
    compiled = []
    for number in range(2):
        assert startup.run(tmp_path, number) > 0
        (result,) = json.loads((tmp_path / f"out{number}/results.json").read_text())
        assert (result["architecture"], result["n"]) == (NAME, startup.BATCH_SIZE)
        compiled.append({file.name for file in (tmp_path / "compilation_cache").glob("*-cache")})
    assert any("_eval_step" in name for name in compiled[0])
    assert compiled[0] == compiled[1]
