"""Pages of training curves: their data, and which files they replace."""

import html
import json

import numpy as np
import pytest
from etils import epath

from an_jax.training import curves
from an_jax.training.curve_data import MAX_POINTS, average_steps, collect, find_differences

HOSTILE = "<img src=x onerror=alert(1)>"


def step_line(step, **fields):
    """A line about one of 50 steps an epoch."""
    return {"epoch": (step - 1) // 50 + 1, "step": step, "steps": 1, "loss": 1 / step, **fields}


def write_lines(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, lines)))


def make_run(workdir, steps=(), **config):
    """A run that stopped after three of four epochs."""
    fields = {"loss": 1.0, "images_per_second": 0.0}
    epochs = [
        {"epoch": epoch, "step": 50 * epoch, **fields, "val_top1": top1}
        for epoch, top1 in ((1, 0.25), (2, 0.75), (3, 0.5))
    ]
    write_lines(workdir / "metrics.jsonl", epochs)
    write_lines(workdir / "steps.jsonl", steps)
    (workdir / "config.json").write_text(json.dumps({"num_epochs": 4} | config))
    return workdir


def read_page(path):
    """The title and the data of a page."""
    text = path.read_text()
    assert "<img" not in text
    title = text.split("<title>")[1].split("</title>")[0]
    data = text.split('<script type="application/json" id="data">')[1].split("</script>")[0]
    return html.unescape(title), json.loads(data)


def test_averages_over_lines():
    """A line counts as many steps as it is about. Unknown values do not count."""
    lines = [
        step_line(2, steps=2, loss=1.0, top1=0.1, gradient_norm=3.0, images_per_second=0.0),
        step_line(5, steps=3, loss=2.0, top1=0.2, images_per_second=9.0),
        step_line(51, steps=46, loss=4.0, top1=0.3, images_per_second=7.0),
    ]
    assert average_steps(lines, 2) == {
        "epoch": [1, 2],
        "step": [5, 51],
        "loss": pytest.approx([1.6, 4.0]),
        "train_top1": pytest.approx([0.16, 0.3]),
        "gradient_norm": pytest.approx([3.0, np.nan], nan_ok=True),
        "images_per_second": pytest.approx([9.0, 7.0]),
    }
    assert average_steps([], 0) == {}


def test_a_long_log(tmp_path):
    """It has at most MAX_POINTS points, with the mean of all steps."""
    lines = [step_line(step) for step in range(1, 2 * MAX_POINTS + 2)]
    (run,) = collect([make_run(epath.Path(tmp_path / "run"), lines)])["runs"]
    losses, bins = run["steps"]["loss"], [3] * (len(lines) // 3) + [len(lines) % 3]
    assert run["lines_per_point"] == 3
    assert len(losses) == len(bins) <= MAX_POINTS
    expected = np.mean([line["loss"] for line in lines])
    assert np.average(losses, weights=bins) == pytest.approx(expected)


def test_differences_of_configurations():
    configs = [
        {"model": "a", "mixup": 0.0, "crop_scale": [0.08, 1.0], "seed": 1},
        {"model": "b", "mixup": 0.0, "crop_scale": [0.2, 1.0]},
        {},
    ]
    assert find_differences(configs) == {
        "model": ["a", "b", None],
        "crop_scale": ["[0.08, 1.0]", "[0.2, 1.0]", None],
    }
    assert find_differences(configs[:1]) == {}


def test_a_page_of_two_runs(tmp_path, capsys):
    """Names stay text. A log without norms and a missing configuration are no errors, and a run
    that is given twice appears once. A page is replaced."""
    old = make_run(tmp_path / HOSTILE, mixup=0.2, seed=1)  # from before other fields existed
    new = make_run(tmp_path / "new", [step_line(1, gradient_norm=np.inf)], mixup=0.0, ema=0.0)
    output = tmp_path / "curves.html"
    for _ in range(2):
        assert curves.main([*map(str, (old, new, old)), "--output", str(output)]) == 0
    title, data = read_page(output)
    assert title == "Training curves of 2 runs"
    first, second = data["runs"]
    assert [first["name"], second["name"]] == [HOSTILE, "new"]
    assert (first["best_epoch"], first["best_val_top1"], first["num_epochs"]) == (2, 0.75, 4)
    assert first["epochs"]["images_per_second"] == [None] * 3
    assert first["steps"] == {}
    assert second["steps"] == {"epoch": [1], "step": [1], "loss": [1.0]}
    assert data["config"] == {"mixup": ["0.2", "0.0"], "seed": ["1", "23"]}

    (old / "config.json").unlink()
    assert curves.main([str(old), "--output", str(output)]) == 0
    title, data = read_page(output)
    assert title == f"Training curves of {HOSTILE}"
    assert data["runs"][0]["num_epochs"] is None


def test_runs_of_one_name(tmp_path):
    runs = [make_run(epath.Path(tmp_path / parent / "run")) for parent in ("a", "b")]
    assert [run["name"] for run in collect(runs)["runs"]] == [*map(str, runs)]


def test_brackets_in_a_name(tmp_path):
    """They are no pattern that matches another run."""
    workdir = epath.Path(make_run(tmp_path / "run[1]"))
    for name, step in (("run[1]", 3), ("run1", 7)):
        write_lines(tmp_path / name / "steps/00001.jsonl", [step_line(step)])
    assert collect([workdir])["runs"][0]["steps"]["step"] == [3]


def test_a_run_in_a_bucket(bucket):
    """Its lines are in a file for each epoch. Later lines about a step count."""
    workdir = make_run(bucket.path / "run", [step_line(99, loss=3.0), step_line(101)])
    for epoch, steps in ((2, (51, 99)), (1, (1, 50))):
        lines = [step_line(step, loss=float(step)) for step in steps]
        write_lines(workdir / f"steps/{epoch:05d}.jsonl", lines)
    output = bucket.path / "curves.html"
    assert curves.main([str(workdir), "--output", str(output)]) == 0
    (run,) = read_page(output)[1]["runs"]
    assert run["steps"]["step"] == [1, 50, 51, 99, 101]
    assert run["steps"]["loss"] == pytest.approx([1.0, 50.0, 51.0, 3.0, 1 / 101])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("curves.html", "exists and is not a page written by an_jax; choose another destination"),
        ("curves.png", "exists and is not a PNG; choose another destination"),
        ("thesis.tex", "the name must end with .html or .png"),
    ],
)
def test_other_files_are_not_replaced(tmp_path, capsys, name, message):
    run, output = make_run(tmp_path / "run"), tmp_path / name
    output.write_text("<html>Attention</html>")
    assert curves.main([str(run), "--output", str(output)]) == 1
    assert message in capsys.readouterr().err
    assert output.read_text() == "<html>Attention</html>"


@pytest.mark.parametrize("suffix", ["html", "png"])
def test_a_run_without_a_finished_epoch(tmp_path, capsys, suffix):
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1, "st')
    assert curves.main([str(tmp_path), "--output", str(tmp_path / f"x.{suffix}")]) == 1
    assert "is not a training run with a finished epoch: it has no" in capsys.readouterr().err


def test_a_damaged_configuration(tmp_path, capsys):
    run = make_run(tmp_path / "run")
    (run / "config.json").write_text("{")
    assert curves.main([str(run), "--output", str(tmp_path / "x.html")]) == 1
    assert "config.json is damaged: " in capsys.readouterr().err
