"""The commands of `make demo`, with less training."""

import json
import subprocess
import sys

from configs import digits
from convert.__main__ import main as convert
from tests.processes import ROOT

# As in digits_runs.config(): other tests compile the same training step, so it may be cached.
TRAINING = (
    "--config=configs/digits.py:bn",
    "--config.batch_size=240",
    "--config.num_epochs=2",
    "--config.warmup_epochs=1",
    "--config.log_steps=4",
)


def run(*command) -> str:
    """Runs a Python command in a process of its own; returns its standard output."""
    words = [sys.executable, *map(str, command)]
    result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert "WARNING" not in result.stderr
    return result.stdout


def test_train_convert_and_evaluate(tmp_path):
    run_dir, pth, checkpoint = tmp_path / "run", tmp_path / "x.pth", tmp_path / "digits_bn"
    run("train.py", *TRAINING, f"--workdir={run_dir}")
    assert convert([str(run_dir), str(pth), "--to-torch"]) == 0  # here: a process costs seconds
    report = run("-m", "convert", pth, checkpoint)
    assert "recognized  resnet_20_bn, 10 classes" in report
    datasets = "digits,digits-rotation"
    options = ("--datasets", datasets, "--batch_size", 120, "--save_predictions")
    table = run(
        "evaluate.py", "--checkpoint", checkpoint, *options, "--output_dir", tmp_path / "out"
    )
    assert "| digits_bn | 0.272 |" in table

    epochs = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert epochs[1]["loss"] < epochs[0]["loss"]
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert [result["dataset"] for result in results] == datasets.split(",")
    assert results[0]["top1"] == max(epoch["val_top1"] for epoch in epochs)
    predictions = (tmp_path / "out/predictions/digits_bn/digits.csv").read_text().splitlines()
    assert len(predictions) == 361
    assert (tmp_path / "out/accuracy_by_test_set.png").stat().st_size > 10_000


def test_demo_models():
    """The digits configuration trains the attentive model by default."""
    assert digits.get_config().model == digits.get_config("an").model == "resnet_20_an_bn1"
    assert digits.get_config("bn").model == "resnet_20_bn"
