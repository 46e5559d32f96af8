"""The bridge: what is read, and that it is exact both ways."""

import functools
import io
import os
import random
import subprocess
import sys
from collections import OrderedDict

import numpy as np
import pytest
import torch

import an_jax
from an_jax import functional
from convert.__main__ import main
from convert.torch_layout import torch_layout
from tests import reference

NAME = "resnet_20_an_bn1"


@functools.cache
def arrays(num_classes=10):
    """Random tensors, all but the counters."""
    rng = np.random.default_rng(0)
    return {
        tensor.key: torch.tensor(rng.standard_normal(tensor.shape, np.float32))
        for tensor in torch_layout(NAME, num_classes)
        if tensor.path
    }


def state_dict(num_classes=10, count=lambda i: 0):
    """In the released order; the i-th tensor, if a counter, is count(i)."""
    keys, tensors = [t.key for t in torch_layout(NAME, num_classes)], arrays(num_classes)
    return {k: tensors[k] if k in tensors else torch.tensor(count(i)) for i, k in enumerate(keys)}


def changed(**tensors):
    """A state dict with some tensors replaced; None leaves one out, __ stands for a dot."""
    tensors = {key.replace("__", "."): value for key, value in tensors.items()}
    return {k: v for k, v in (state_dict() | tensors).items() if v is not None}


def every(convert):
    return {k: convert(v) if v.is_floating_point() else v for k, v in state_dict().items()}


def prefixed(prefix):
    return {prefix + key: tensor for key, tensor in state_dict().items()}


def shuffled(tensors):
    return dict(random.Random(0).sample(list(tensors.items()), len(tensors)))


def of_module():
    tensors = OrderedDict(state_dict())
    tensors._metadata = OrderedDict({"": {"version": 1}})
    return tensors


def of_training():
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
    others = {"optimizer": optimizer, "scheduler": {"last_epoch": 3}, "epoch": 3, "amp": None}
    return {**others, "model": state_dict()}


def serialized(content, zipped=True):
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def run(*arguments):
    return main([str(argument) for argument in arguments])


def assert_loads(checkpoint, tensors, num_classes=10):
    _, params, batch_stats = functional.split(an_jax.load_model(checkpoint))
    loaded = params | batch_stats
    expected = {
        t.path: t.from_torch(tensors[t.key].numpy())
        for t in torch_layout(NAME, num_classes)
        if t.path
    }
    assert loaded.keys() == expected.keys()
    assert all(np.array_equal(loaded[path], expected[path]) for path in expected)


def assert_same(actual, expected):
    """Bit by bit, and in the same order."""
    assert list(actual) == list(expected)
    assert [t.dtype for t in actual.values()] == [t.dtype for t in expected.values()]
    assert all(torch.equal(actual[key], expected[key]) for key in expected)


@pytest.mark.parametrize(
    ("make", "described"),
    [
        pytest.param(make, described, id=name)
        for name, make, described in (
            ("bare", state_dict, ", a bare state dict"),
            ("module", of_module, ", a bare state dict"),
            ("state_dict", lambda: {"state_dict": state_dict()}, " under 'state_dict'"),
            ("training", of_training, " under 'model'"),
            (
                "module.",
                lambda: prefixed("module."),
                ", a bare state dict, prefix 'module.' removed",
            ),
            (
                "module.network.",
                lambda: {"state_dict": prefixed("module.network.")},
                " under 'state_dict', prefix 'module.network.' removed",
            ),
            ("counters", lambda: state_dict(count=lambda i: 500), ""),
            ("shuffled", lambda: shuffled(state_dict()), ""),
            ("parameters", lambda: every(torch.nn.Parameter), ""),
            ("numpy", lambda: {"state_dict": state_dict(), "best_prec1": np.float64(77)}, ""),
            ("numpy_int", lambda: {"state_dict": state_dict(), "epoch": np.int64(7)}, ""),
        )
    ],
)
def test_wrappings(make, described, tmp_path, capsys):
    source, destination = tmp_path / "x.pth", tmp_path / "checkpoint"
    torch.save(make(), source)
    assert run(source, destination) == 0
    report, errors = capsys.readouterr()
    assert f"182 tensors{described}" in report
    assert f"recognised  {NAME}, 10 classes\n" in report
    assert "152 tensors in place" in report
    assert errors == ""
    assert_loads(destination, arrays())


def test_legacy_format(tmp_path):
    """With a scalar of NumPy 1, as in files of the papers' time."""
    data = serialized({**of_training(), "best_prec1": np.float64(77)}, zipped=False)
    old = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert old != data
    (tmp_path / "x.pth").write_bytes(old)
    assert run(tmp_path / "x.pth", tmp_path / "checkpoint") == 0
    assert_loads(tmp_path / "checkpoint", arrays())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype, tmp_path):
    torch.save(every(lambda tensor: tensor.to(dtype)), tmp_path / "x.pth")
    assert run(tmp_path / "x.pth", tmp_path / "checkpoint") == 0
    assert_loads(tmp_path / "checkpoint", {k: v.to(dtype).float() for k, v in arrays().items()})


@pytest.mark.parametrize(
    ("num_classes", "count"), [(10, lambda i: 0), (7, lambda i: 500), (10, lambda i: i)]
)
def test_round_trip(num_classes, count, tmp_path, capsys):
    expected, back = state_dict(num_classes, count), tmp_path / "back.pth"
    torch.save({"state_dict": shuffled(expected)}, tmp_path / "x.pth")
    assert run(tmp_path / "x.pth", tmp_path / "checkpoint") == 0
    assert run("--to-torch", tmp_path / "checkpoint", back) == 0
    assert capsys.readouterr().out.count(f"{num_classes} classes") == 2
    assert_same(torch.load(back, weights_only=True), expected)


def test_round_trip_without_counters(tmp_path):
    torch.save(arrays(), tmp_path / "x.pth")
    assert run(tmp_path / "x.pth", tmp_path / "checkpoint") == 0
    assert run("--to-torch", tmp_path / "checkpoint", tmp_path / "back.pth") == 0
    assert_same(torch.load(tmp_path / "back.pth", weights_only=True), state_dict())


def test_command(tmp_path):
    torch.save(state_dict(), tmp_path / "x.pth")
    command = [sys.executable, "-m", "convert", "--model", NAME, "x.pth", "checkpoint"]
    environment = {**os.environ, "PYTHONPATH": str(reference.FIXTURES.parents[1])}
    options = {"env": environment, "cwd": tmp_path, "capture_output": True, "text": True}
    done = subprocess.run(command, **options)
    assert (done.returncode, done.stderr) == (0, "")
    assert_loads(tmp_path / "checkpoint", arrays())
