"""The commands of docs/cloud_tpu.md on one bucket, in two processes of four devices each."""

import json

import pytest

from convert.__main__ import main as convert
from tests.processes import finish, start_two
from tests.test_train_buckets import train_flags

SCORES = {"digits", "digits-blur"}


def run(script, *flags):
    """Runs a command to its end on both processes. Returns what process 0 prints."""
    (status, out, err), (other_status, *_) = finish(*start_two(script, *flags))
    assert (status, other_status) == (0, 0), err
    return out


def files(directory):
    """Returns the path and the length of each file."""
    paths = [parent / name for parent, _, names in directory.walk() for name in names]
    return {str(path): path.stat().length for path in paths}


@pytest.mark.slow
def test_train_evaluate_and_convert_in_a_bucket(bucket, tmp_path):
    """Train, evaluate, convert out of the bucket, back into it and within it, evaluate the results
    into the same table, and start the complete run again."""
    workdir, results, models = (bucket.path / name for name in ("runs/r", "results", "models"))
    training = train_flags(workdir, image_size=16)  # that of the architecture; a .pth has none
    assert "best val top-1" in run("train.py", *training)

    options = (f"--datasets={','.join(SCORES)}", "--batch_size=64", f"--output_dir={results}")
    assert f"written to {results}" in run("evaluate.py", f"--checkpoint={workdir}", *options)

    for pth, model in ((tmp_path / "r.pth", "from_outside"), (bucket.path / "r.pth", "within")):
        assert convert([str(workdir), str(pth), "--to-torch"]) == 0
        assert convert([str(pth), str(models / model)]) == 0
    run("evaluate.py", f"--checkpoint={models}", *options)

    rows = json.loads((results / "results.json").read_text())
    assert len(rows) == 6
    for dataset in SCORES:
        of_run, *of_converted = (row for row in rows if row["dataset"] == dataset)
        assert of_run["n"] == 360
        assert {of_run.pop("model")} | {row.pop("model") for row in of_converted} == {
            *("r", "from_outside", "within")
        }
        assert of_converted == [of_run, of_run]

    before = files(workdir)
    assert "img/s" not in run("train.py", *training)  # no epoch
    assert files(workdir) == before
