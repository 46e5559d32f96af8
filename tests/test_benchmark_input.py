"""benchmark.py on input, evaluation and start-up. Tests assert nothing about speed."""

import gc
import json
import os
import types

import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from tensorflow.python.data.ops.iterator_ops import OwnedIterator

import benchmark
from an_jax.benchmark import evaluation, machine, programs, startup, timing
from an_jax.benchmark.input import by_pillow, pipelines
from an_jax.benchmark.input.photographs import find_photographs, write_photographs
from an_jax.benchmark.processes import run_in_process
from an_jax.benchmark.timing import WARM_UP_STEPS, Times
from an_jax.checkpoint import ModelCard
from an_jax.errors import InputError
from benchmarks import reduced_decoding, tfds_records
from tests import pictures

NAME = "resnet_20_an_bn1"


@pytest.fixture
def folder(tmp_path):
    """A folder of two JPEGs."""
    path = tmp_path / "images"
    path.mkdir()
    for i, photograph in enumerate(pictures.photographs()):
        (path / f"{i}.jpg").write_bytes(pictures.encode(photograph, quality=90))
    return path


@pytest.fixture
def given(folder):
    """Sets flags of benchmark.py."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    return lambda **values: flagsaver.flagsaver(images=str(folder), **values)


def test_start_and_prefetching_do_not_count(monkeypatch):
    """Times exclude the start of a pipeline and prefetched batches. The clock is simulated."""
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
    few = WARM_UP_STEPS
    a, b = [("a", few), ("a", few + 16)], [("b", few), ("b", few + 8)]
    assert calls[-12:] == [*a, *b] * 3


def test_steps_too_short_to_be_timed(monkeypatch):
    """Steps are refused if the variation of the start hides their time. The clock is simulated."""
    now, starts = 0.0, iter(range(100, 0, -1))

    def run(n):
        nonlocal now
        now += next(starts) + 0.01 * n

    monkeypatch.setattr(timing, "time", types.SimpleNamespace(perf_counter=lambda: now))
    with pytest.raises(InputError, match="fast: more steps took less time: use a longer --sec"):
        timing.measure_started({"fast": run}, repeats=1, seconds=-9.0)


def test_figures_have_ranges():
    ours, others = Times((0.25, 0.5, 0.2)), Times((0.5, 0.5, 0.5))
    assert timing.rates("rate", ours, 2) == {"rate": 8.0, "rate_range": (4.0, 10.0)}
    assert timing.ratio("ratio", ours, others) == {"ratio": 2.0, "ratio_range": (1.0, 2.5)}


@pytest.mark.parametrize("batches", [pipelines.evaluation_batches, pipelines.training_batches])
def test_a_pipeline_frees_its_iterators(folder, batches):
    def iterators():
        return sum(type(x) is OwnedIterator for x in gc.get_objects())

    before = iterators()
    gc.disable()
    try:
        pipelines.exhaust(batches(sorted(folder.iterdir()), 2))
        assert iterators() == before
    finally:
        gc.enable()


def test_pillow_does_the_same_work(folder):
    files, size = sorted(folder.iterdir()), pipelines.BATCH_SIZE
    settings = (files, 2, size, pipelines.PREPROCESSING)
    ours = [batch["image"] for batch in pipelines.evaluation_batches(files, 2)]
    np.testing.assert_array_equal(ours, list(by_pillow.evaluation_batches(*settings)))
    ours += [batch.images for batch in pipelines.training_batches(files, 2)]
    pillows = list(by_pillow.training_batches(*settings, pipelines.CROP_SCALE))
    assert [images.shape for images in [*ours, *pillows]] == [(size, 224, 224, 3)] * 6
    assert np.unique(np.concatenate(pillows), axis=0).shape[0] == 2 * size


def test_functions_run_on_the_given_cores():
    core = max(os.sched_getaffinity(0))
    assert run_in_process(os.sched_getaffinity, 0, cores=[core]) == {core}
    assert run_in_process(os.getpid) != os.getpid()


def test_pipelines_are_measured_on_more_and_more_cores(monkeypatch, given, capsys):
    def run(function, pipeline, files, with_pillow, repeats, seconds, *, cores):
        assert function is pipelines._time_batches
        measured.append(pipeline)
        names = ["ours", "Pillow"] if with_pillow else ["ours"]
        return dict.fromkeys(names, Times((1.0 * len(cores),) * repeats))

    measured = []

    monkeypatch.setattr(pipelines, "run_in_process", run)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    with given(mode="data", repeats=2):
        rows = []
        for row, _ in benchmark.run_data():
            rows.append(row)
            assert measured == [row["pipeline"] for row in rows]  # printed as they come
        benchmark.run()
    assert [row["cores"] for row in rows] == [1, 1, 2, 2, 3, 3]
    for row in rows:
        rate = pipelines.BATCH_SIZE / row["cores"]
        assert row["samples_per_sec"] == rate
        assert row["samples_per_sec_range"] == (rate, rate)
        assert ("ratio" in row) == ("pillow_samples_per_sec_range" in row) == (row["cores"] == 1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "evaluation on 1 cores: 32 img/s; Pillow 32; ratio 1.00 (1.00 to 1.00)"
    assert lines[-3] == "training on 3 cores: 11 img/s"
    assert lines[-2].startswith("device: ")
    assert lines[-1].startswith("using 8 devices")


def run_once(programs, *, repeats, seconds):
    """Stands for measure_started: runs a step of each program."""
    for run in programs.values():
        run(1)
    return dict.fromkeys(programs, Times((0.25, 0.25, 0.25)))


@pytest.mark.parametrize("pipeline", ["evaluation", "training"])
def test_input_pipelines_beside_pillow(monkeypatch, folder, pipeline):
    monkeypatch.setattr(pipelines, "measure_started", run_once)
    times = pipelines._time_batches(pipeline, sorted(folder.iterdir()), True, 1, 0.0)
    assert list(times) == ["ours", "Pillow"]


def test_systems_without_core_affinity_are_refused(monkeypatch):
    monkeypatch.delattr(os, "sched_setaffinity")
    with pytest.raises(InputError, match="--mode=data needs Linux"):
        next(pipelines.measure_pipelines(None, 1, 0.0))


def test_photographs(tmp_path):
    with pytest.raises(InputError, match=r"no JPEGs"):
        find_photographs(str(tmp_path), tmp_path)
    assert len(find_photographs(None, tmp_path)) == 6
    assert len(find_photographs(str(tmp_path), tmp_path)) == 6


def test_evaluation_beside_its_parts(unset, monkeypatch, given, capsys):
    def measure(*arguments, **settings):
        assert jax.config.jax_default_matmul_precision == "highest"  # as in evaluate.py
        return run_once(*arguments, **settings)

    inference = programs.Program(lambda n: None, None, None)
    monkeypatch.setattr(programs, "inference", lambda *_: inference)
    monkeypatch.setattr(evaluation, "measure_started", measure)
    with given(models=[NAME], batch_size=8, dtype="float32"):
        ((figures, line),) = benchmark.run_evaluate()
    assert capsys.readouterr().err.startswith(f"{NAME}: pipeline 32.0 img/s, in a first turn\n")
    expected = {"model": NAME, "pipeline": 32.0, "inference": 32.0, "evaluation": 32.0}
    assert figures.items() >= (expected | {"share": 1.0, "bound": 0.5}).items()
    assert line == (
        f"{NAME}: pipeline 32.0, inference 32.0, evaluation 32.0 img/s; "
        "1.000 (1.000 to 1.000) of the slower part (0.500 if both need the same cores)"
    )


@pytest.mark.parametrize("slower", ["pipeline", "inference"])
def test_evaluation_is_compared_with_the_slower_part(slower):
    times = dict.fromkeys(("pipeline", "inference"), Times((0.25, 0.25, 0.25)))
    times |= {slower: Times((0.5, 0.5, 0.5)), "evaluation": Times((0.5, 1.0, 0.625))}
    figures = evaluation.summarize(NAME, times, 8)
    rates = {"pipeline": 32.0, "inference": 32.0, slower: 16.0, "evaluation": 12.8}
    assert figures.items() >= ({"model": NAME, "share": 0.8, "bound": 2 / 3} | rates).items()
    assert figures["evaluation_range"] == (8.0, 16.0)
    assert figures["share_range"] == (0.5, 1.0)


def test_the_device_is_free_during_the_runs(monkeypatch, given):
    order = []
    monkeypatch.setattr(benchmark, "run_startup", lambda: order.append("runs") or [({}, "line")])
    monkeypatch.setattr(machine, "describe_machine", lambda with_torch: order.append("jax") or {})
    with given(mode="startup"):
        benchmark.run()
    assert order == ["runs", "jax"]


EVALUATE_STUB = """
import os, pathlib, sys
_, _, model, _, data, _, out, *rest = sys.argv
sys.exit("error: no checkpoint") if not os.path.exists(model) else None
assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
assert len(list(pathlib.Path(data).rglob("*.JPEG"))) == 16
assert rest == ["--batch_size", "16", "--allow_partial"]
os.mkdir(out)
"""


@pytest.fixture
def stub_evaluate(monkeypatch, tmp_path):
    """Replaces evaluate.py by a script that only checks what it is given."""
    script = tmp_path / "evaluate_stub.py"
    script.write_text(EVALUATE_STUB)
    monkeypatch.setattr(startup, "EVALUATE", script)


def test_startup_runs_evaluate_on_one_batch(monkeypatch, stub_evaluate, given):
    def run_in_process(function, path, name):
        assert (function, name) == (startup.save_random, NAME)
        path.mkdir()

    monkeypatch.setattr(startup, "run_in_process", run_in_process)
    monkeypatch.setattr(startup, "measure_parts", lambda root: {"tracing": 0.25})
    with given(models=[NAME], repeats=2):
        ((figures, line),) = benchmark.run_startup()
    assert figures.keys() == {"model", "cold", "warm", "warm_range", "parts"}
    least, largest = figures["warm_range"]
    assert 0 < least < figures["warm"] < largest
    assert line.startswith(f"{NAME}: a run on one batch takes {figures['cold']:.1f} s, then, ")
    assert line.endswith("\n  tracing: 0.25 s")


def test_a_failing_evaluation_is_reported(tmp_path, stub_evaluate):
    with pytest.raises(InputError, match=r"evaluate\.py failed: error: no checkpoint"):
        startup.run(tmp_path, 0)


def test_random_checkpoint(tmp_path):
    startup.save_random(tmp_path / "model", NAME)
    card = ModelCard.read(tmp_path / "model")
    assert (card.model, card.num_classes) == (NAME, 1000)


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
    parts = startup.measure_parts(tmp_path)
    expected = [
        "imports, CPU time",
        "opening the data",
        "reading the weights",
        "first batch",
        "tracing",
    ]
    expected += ["lowering", "compiling or loading", "counting operations", "writing the results"]
    assert list(parts)[:-1] == expected
    assert min(parts.values()) > 0


def test_crops_at_reduced_scale(tmp_path):
    """No crop of ImageNet's usual size has one. Where crops do, the pixels are similar."""
    assert reduced_decoding.find_divisors((500, 375)).max() == 1
    files = write_photographs(tmp_path, (640, 480))
    ((full, divisor),), ((reduced, _),) = (
        reduced_decoding.crop_batches(files, 1, is_reduced=is_reduced).as_numpy_iterator()
        for is_reduced in (False, True)
    )
    difference = np.abs(np.int32(full) - reduced).mean((1, 2, 3))
    assert sorted(set(divisor[:, 0])) == [1, 2]
    assert difference[divisor[:, 0] == 1].max() == 0
    assert 0 < difference[divisor[:, 0] == 2].min() < difference.max() < 4


def test_the_same_images_as_files_and_as_records(tmp_path):
    sources = tfds_records.make_sources(tmp_path, 16)
    files, records = (
        {example["filename"]: example["image"] for example in s.read(range(16)).as_numpy_iterator()}
        for s in sources
    )
    assert len(files) == 16
    assert records == files
