"""scripts/train_on_tpu.sh, with a gcloud that only writes down what it is asked for."""

import subprocess

import pytest

from tests.processes import ROOT

# The TPU is preempted during the first training. The second one ends.
GCLOUD = """#!/usr/bin/env bash
cd {directory}
case "$*" in
  *queued-resources\\ describe*)
    if [ ! -e asked ]; then
      touch asked
      echo "ERROR: (gcloud) the network is down" >&2
      exit 1
    fi
    cat state 2>/dev/null || {{ echo "ERROR: NOT_FOUND: Resource was not found" >&2; exit 1; }} ;;
  *queued-resources\\ create*) echo "create $*" >> calls; echo ACTIVE > state ;;
  *queued-resources\\ delete*) echo delete >> calls; rm state ;;
  *\\ scp\\ *) echo copy >> calls; tar -tzf "$5" > copied ;;
  *train.py*)
    echo "$*" >> calls
    if [[ "$*" == *broken* ]]; then
      exit 1
    elif [ -e preempted ]; then
      echo "best val top-1 78.4 % in epoch 120"
    else
      touch preempted
      echo SUSPENDED > state
      exit 255
    fi ;;
  *ssh*) echo install >> calls ;;
esac
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "gcloud"
    program.parent.mkdir()
    program.write_text(GCLOUD.format(directory=tmp_path))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setenv("POLL_SECONDS", "0")

    def run(*arguments):
        command = ["scripts/train_on_tpu.sh", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)

    return run


def test_a_preempted_training_goes_on_until_it_is_complete(run, tmp_path):
    training = ["--config=configs/imagenet.py:resnet_50_an_bn2", "--workdir=gs://bucket/a run"]
    ended = run("r50", "us-central2-b", "v4-8", "tpu-ubuntu2204-base", *training)
    assert ended.returncode == 0, ended.stderr
    create, *first = (tmp_path / "calls").read_text().splitlines()
    assert "r50 --zone=us-central2-b --node-id=r50 --accelerator-type=v4-8" in create
    assert "--spot" in create
    train = first[2]
    assert "--worker=all" in train
    assert r"--workdir=gs://bucket/a\ run" in train
    attempt = ["copy", "install", train, "delete"]
    assert first == [*attempt, create, *attempt]
    assert "train.py" in (tmp_path / "copied").read_text()


def test_a_training_that_cannot_start_does_not_keep_the_tpu(run, tmp_path):
    ended = run("r50", "us-central2-b", "v4-8", "tpu-ubuntu2204-base", "--config=broken")
    assert ended.returncode == 1
    assert "error: the training ended within minutes three times" in ended.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[-1] == "delete"
    assert sum("train.py" in call for call in calls) == 3


def test_without_arguments_it_explains_itself(run):
    ended = run()
    assert ended.returncode == 2
    assert "scripts/train_on_tpu.sh NAME ZONE" in ended.stdout
