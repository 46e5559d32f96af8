"""The commands of `make demo`, as a person runs them: each a process, on fewer epochs."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run(*command) -> str:
    words = [sys.executable, *map(str, command)]
    result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert "WARNING" not in result.stderr
    return result.stdout


def test_train_convert_and_evaluate(tmp_path):
    run_dir, pth, checkpoint = tmp_path / "run", tmp_path / "digits.pth", tmp_path / "digits_an"
    config = ("--config=configs/digits.py:an", "--config.num_epochs=3", "--config.warmup_epochs=1")
    run("train.py", *config, f"--workdir={run_dir}")
    run("-m", "convert", run_dir, pth, "--to-torch")
    report = run("-m", "convert", pth, checkpoint)
    assert "resnet_20_an_bn1, 10 classes" in report
    datasets = "digits,digits-rotation"
    options = ("--datasets", datasets, "--output_dir", tmp_path / "out", "--save_predictions")
    table = run("evaluate.py", "--checkpoint", checkpoint, *options)
    assert "| digits_an | 0.288 |" in table

    epochs = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    best = max(epoch["val_top1"] for epoch in epochs)
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert [r["dataset"] for r in results] == datasets.split(",")
    assert results[0]["top1"] == best
    assert epochs[-1]["loss"] < epochs[0]["loss"]
    predictions = (tmp_path / "out/predictions/digits_an/digits.csv").read_text().splitlines()
    assert len(predictions) == 361
    assert (tmp_path / "out/accuracy_by_test_set.png").stat().st_size > 10_000
