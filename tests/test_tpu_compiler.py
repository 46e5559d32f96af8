"""Programs for TPUs, lowered or compiled for CPUs instead."""

import importlib.util
import json
import os
import sys

import jax
import pytest

from an_jax.benchmark import tpu_compiler
from an_jax.training.config import default_config
from benchmarks import draw_traffic, peers, tpu_bytes


@pytest.fixture
def config():
    config = default_config()
    config.model, config.image_size = "resnet_20_an_bn1", 16
    config.batch_size = config.eval_batch_size = 16
    return config


@pytest.mark.parametrize("program", ["train", "eval"])
def test_programs_take_uint8_images_and_compute_in_bfloat16(config, program):
    lower = getattr(tpu_compiler, tpu_bytes.PROGRAMS[program])
    text = lower(config, jax.devices()[:2]).as_text()
    assert "tensor<16x16x16x3xui8>" in text
    assert "tensor<3x3x3x16xf32>" in text  # parameters
    convolutions = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    assert convolutions
    assert all("bf16" in line.partition("->")[2] for line in convolutions)


@pytest.mark.parametrize("peer", peers.PEERS)
def test_peers_are_resnet_50_in_bfloat16(config, peer):
    config.model, config.image_size = peer, 224
    lowered = peers.lower_evaluation(config, jax.devices()[:2])
    arrays = jax.tree.leaves(lowered.in_avals[0][0])
    assert sum(array.size for array in arrays) == 25_557_032  # torchvision's number
    text = lowered.as_text()
    convolutions = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    assert len(convolutions) == 53
    assert all("bf16" in line.partition("->")[2] for line in convolutions)


def test_search_for_a_tpu_is_disabled(monkeypatch):
    names = ("TPU_SKIP_MDS_QUERY", "TPU_ACCELERATOR_TYPE", "TPU_WORKER_HOSTNAMES")
    for name in names:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    tpu_compiler.disable_tpu_search()
    assert [os.environ[name] for name in names] == ["1", "none", "localhost"]


def test_table_of_bytes(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(tpu_compiler, "tpu_devices", lambda topology: jax.devices())
    monkeypatch.setattr(tpu_compiler, "disable_tpu_search", lambda: None)
    file = tmp_path / "bytes.json"
    arguments = ["resnet_20_bn", "--batch", "2", "--programs", "eval", "--json", str(file)]
    monkeypatch.setattr(sys, "argv", ["tpu_bytes.py", *arguments])
    assert tpu_bytes.main() == 0
    (row,) = json.loads(file.read_text())
    assert (row["model"], row["program"], row["batch"]) == ("resnet_20_bn", "eval", 2)
    moved, floor = row["gb_per_image"], row["floor_gb_per_image"]
    assert min(moved, floor) > 0
    assert f"| resnet_20_bn | eval | {moved:.4f} | {floor:.4f} |" in capsys.readouterr().out
    picture = tmp_path / "traffic.png"
    monkeypatch.setattr(sys, "argv", ["draw_traffic.py", str(file), str(picture)])
    assert draw_traffic.main() == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(sys, "argv", ["tpu_bytes.py", *arguments])
    assert tpu_bytes.main() == 0  # replaces the file
    file.write_text("thesis")
    assert tpu_bytes.main() == 1
    assert f"{file} exists and was not written by this command" in capsys.readouterr().err


def test_a_missing_compiler_is_reported(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(tpu_compiler, "disable_tpu_search", lambda: None)
    monkeypatch.setattr(sys, "argv", ["tpu_bytes.py", "resnet_20_bn"])
    assert tpu_bytes.main() == 1
    assert capsys.readouterr().err.startswith(
        "error: the TPU compiler is not installed: pip install"
    )
