"""The conversion: what it reads, and that it is exact in both directions."""

import dataclasses
import functools
import io
import os
import random
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import an_jax
from an_jax import functional, zoo
from an_jax.checkpoint import ModelCard
from an_jax.evaluation.inputs import find_checkpoints
from convert.__main__ import main
from convert.torch_layout import torch_layout
from convert.weights_file import read_state_dict
from tests.processes import ROOT

NAME = "resnet_20_an_bn1"
FEW = {"weight": torch.ones(3), "bias": torch.ones(3)}


@functools.cache
def arrays(num_classes=10):
    """Random tensors by key, without the counters."""
    rng = np.random.default_rng(0)
    return {
        tensor.key: torch.tensor(rng.standard_normal(tensor.shape, np.float32))
        for tensor in torch_layout(NAME, num_classes)
        if tensor.path
    }


def state_dict(num_classes=10, count=lambda i: 0):
    """A state dict in the released order. Its i-th tensor, if it is a counter, is count(i)."""
    keys, tensors = [t.key for t in torch_layout(NAME, num_classes)], arrays(num_classes)
    return {k: tensors[k] if k in tensors else torch.tensor(count(i)) for i, k in enumerate(keys)}


def state_dict_with(**tensors):
    """A state dict with some tensors replaced, or removed if None. __ stands for a dot."""
    tensors = {key.replace("__", "."): value for key, value in tensors.items()}
    return {k: v for k, v in (state_dict() | tensors).items() if v is not None}


def map_floats(convert):
    """A state dict with `convert` applied to its floating-point tensors."""
    return {k: convert(v) if v.is_floating_point() else v for k, v in state_dict().items()}


def add_prefix(prefix):
    return {prefix + key: tensor for key, tensor in state_dict().items()}


def shuffle(tensors):
    return dict(random.Random(0).sample(list(tensors.items()), len(tensors)))


def module_state_dict():
    """As module.state_dict() returns it."""
    tensors = OrderedDict(state_dict())
    tensors._metadata = OrderedDict({"": {"version": 1}})
    return tensors


def training_checkpoint():
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
    others = {"optimizer": optimizer, "scheduler": {"last_epoch": 3}, "epoch": 3, "amp": None}
    return {**others, "model": state_dict()}


def serialize(content, zipped=True, protocol=2):
    buffer = io.BytesIO()
    options = {"pickle_protocol": protocol, "_use_new_zipfile_serialization": zipped}
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def run(*arguments):
    return main([str(argument) for argument in arguments])


def assert_loads(checkpoint, tensors, num_classes=10):
    """Checks that a checkpoint's model has exactly these weights."""
    _, params, batch_stats = functional.split(an_jax.load_model(checkpoint))
    loaded = params | batch_stats
    expected = {
        t.path: t.from_torch(tensors[t.key].numpy())
        for t in torch_layout(NAME, num_classes)
        if t.path
    }
    assert loaded.keys() == expected.keys()
    assert all(np.array_equal(loaded[path], expected[path]) for path in expected)


def to_torch(tensors):
    return {key: torch.tensor(array) for key, array in tensors.items()}


def assert_same(actual, expected):
    """Checks that state dicts are equal bit by bit and in the same order."""
    assert list(actual) == list(expected)
    assert [t.dtype for t in actual.values()] == [t.dtype for t in expected.values()]
    assert all(torch.equal(actual[key], expected[key]) for key in expected)


@pytest.mark.parametrize(
    ("make", "description"),
    [
        pytest.param(make, description, id=name)
        for name, make, description in (
            ("bare", state_dict, ", a bare state dict"),
            ("module", module_state_dict, ", a bare state dict"),
            ("state_dict", lambda: {"state_dict": state_dict()}, " under 'state_dict'"),
            ("training", training_checkpoint, " under 'model'"),
            (
                "module.",
                lambda: add_prefix("module."),
                ", a bare state dict, prefix 'module.' removed",
            ),
            (
                "module.network.",
                lambda: {"state_dict": add_prefix("module.network.")},
                " under 'state_dict', prefix 'module.network.' removed",
            ),
            (
                "nested",
                lambda: {"net": {"params": add_prefix("_orig_mod.module.")}, "queue": FEW},
                " under 'net.params', prefix '_orig_mod.module.' removed",
            ),
            (
                "encoder.",
                lambda: {"loss": FEW, "a": {"b": {"c": {"d": add_prefix("a.encoder.0.")}}}},
                " under 'a.b.c.d', prefix 'a.encoder.0.' removed",
            ),
            (
                "numpy",
                lambda: {"state_dict": state_dict(), "best_prec1": np.float64(77)},
                " under 'state_dict'",
            ),
            (
                "numpy_int",
                lambda: {"state_dict": state_dict(), "epoch": np.int64(7)},
                " under 'state_dict'",
            ),
        )
    ],
)
def test_wrappers_and_prefixes(make, description, tmp_path):
    torch.save(make(), tmp_path / "x.pth")
    tensors, actual, _ = read_state_dict(tmp_path / "x.pth")
    assert actual == f"182 tensors{description}"
    assert_same(to_torch(tensors), state_dict())


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickle_protocols(protocol, zipped, tmp_path):
    content = {**training_checkpoint(), "best_prec1": np.float64(77), "git": b"\xff"}
    (tmp_path / "x.pth").write_bytes(serialize(content, zipped, protocol))
    assert_same(to_torch(read_state_dict(tmp_path / "x.pth").tensors), state_dict())


def test_legacy_format(tmp_path):
    """A file of the papers' time: legacy format, with a NumPy 1 scalar."""
    data = serialize({**training_checkpoint(), "best_prec1": np.float64(77)}, zipped=False)
    old = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert old != data
    (tmp_path / "x.pth").write_bytes(old)
    assert_same(to_torch(read_state_dict(tmp_path / "x.pth").tensors), state_dict())


def test_report(tmp_path, capsys):
    source, destination = tmp_path / "x.pth", tmp_path / "checkpoint"
    torch.save({"model": map_floats(torch.nn.Parameter)}, source)
    assert run(source, destination) == 0
    report, errors = capsys.readouterr()
    assert report == (
        f"read        {source}: 182 tensors under 'model'\n"
        f"recognized  {NAME}, 10 classes\n"
        "checked     152 tensors in place, none missing, none left over, all finite; "
        "0.288 M parameters\n"
        f"wrote       {destination} and read it back: equal bit for bit\n"
    )
    assert errors == ""
    assert_loads(destination, arrays())


def test_averaged_weights(tmp_path, capsys):
    """`--weights` chooses between plain and averaged weights, or an entry by name. The report says
    that there are others. torchvision saves those of an AveragedModel, with a prefix and a counter.
    """
    source, name, average = tmp_path / "x.pth", "avg_model", map_floats(lambda tensor: tensor + 1)
    wrapped = {f"module.{key}": tensor for key, tensor in average.items()}
    torch.save({"model": state_dict(), name: wrapped | {"n_averaged": torch.tensor(9)}}, source)
    note = f"note        the file also holds averaged weights ({name!r}); --weights ema takes them"
    for weights, expected in (("plain", state_dict()), ("ema", average), (name, average)):
        assert run(source, tmp_path / weights, "--weights", weights) == 0
        assert_loads(tmp_path / weights, expected)
        assert ModelCard.read(tmp_path / weights).source["weights"] == weights
        assert (note in capsys.readouterr().out.splitlines()) == (weights == "plain")


@pytest.mark.parametrize(
    "path", ["state_dict_ema", "ema", "model.ema", "params_ema", "swa_model", "averaged", "shadow"]
)
def test_names_of_averages(path, tmp_path):
    """Only whole words count."""
    average = map_floats(lambda tensor: tensor + 1)
    content = {"net": {"schema_swap": state_dict()}, "epoch": 3}
    outer, _, inner = path.partition(".")
    torch.save({outer: {inner: average} if inner else average} | content, tmp_path / "x.pth")
    plain = read_state_dict(tmp_path / "x.pth")
    assert_same(to_torch(plain.tensors), state_dict())
    assert plain.unread_average == path
    assert_same(to_torch(read_state_dict(tmp_path / "x.pth", weights="ema").tensors), average)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(dtype, tmp_path, capsys):
    expected = map_floats(lambda tensor: (tensor.double() / 3).to(dtype))
    torch.save(expected, tmp_path / "x.pth")
    assert run(tmp_path / "x.pth", tmp_path / "checkpoint") == 0
    assert_loads(tmp_path / "checkpoint", {k: v.float() for k, v in expected.items()})
    note = "note        152 tensors are float64; they were rounded to float32"
    assert (note in capsys.readouterr().out.splitlines()) == (dtype == torch.float64)


def test_averaged_counters(tmp_path):
    """An average of weights may have averaged the counters too."""
    torch.save(state_dict(count=lambda i: i + 0.25), tmp_path / "x.pth")
    assert run(tmp_path / "x.pth", tmp_path / "checkpoint") == 0
    assert run("--to-torch", tmp_path / "checkpoint", tmp_path / "back.pth") == 0
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert_same(back, state_dict(count=lambda i: i))


def test_preprocessing(tmp_path):
    torch.save(state_dict(), tmp_path / "x.pth")
    options = ("--interpolation", "bicubic", "--crop_pct", 0.95, "--image_size", 192)
    assert run(tmp_path / "x.pth", tmp_path / "checkpoint", *options) == 0
    expected = dataclasses.replace(
        zoo.get_architecture(NAME).preprocessing,
        interpolation="bicubic",
        crop_pct=0.95,
        image_size=192,
    )
    assert ModelCard.read(tmp_path / "checkpoint").preprocessing == expected


def test_safetensors_without_torch(tmp_path):
    """Both directions, in a process that cannot import PyTorch. A .pth file names what it needs."""
    expected, path = state_dict(count=lambda i: i), tmp_path / "x.safetensors"
    save_file({k: v.bfloat16() if k == "fc.bias" else v for k, v in expected.items()}, path)
    torch.save(expected, tmp_path / "x.pth")
    code = (
        "import sys; sys.modules['torch'] = None; from convert.__main__ import main as m;"
        "print(m(['x.safetensors', 'x']), m(['x', 'back.safetensors', '--to-torch']),"
        "m(['x.pth', 'y']), m(['x', 'y.pth', '--to-torch']))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert process.stdout.splitlines()[-1] == "0 0 1 1"
    assert process.stderr.count(".pth files need PyTorch: pip install -e '.[convert]'") == 2
    expected["fc.bias"] = expected["fc.bias"].bfloat16().float()
    back = load_file(tmp_path / "back.safetensors")
    assert_same({key: back[key] for key in expected}, expected)
    assert back.keys() == expected.keys()


@pytest.mark.parametrize(
    ("num_classes", "count"), [(10, lambda i: 0), (7, lambda i: 500), (10, lambda i: i)]
)
def test_round_trip(num_classes, count, tmp_path, capsys):
    expected, back = state_dict(num_classes, count), tmp_path / "back.pth"
    torch.save({"state_dict": shuffle(expected)}, tmp_path / "x.pth")
    assert run(tmp_path / "x.pth", tmp_path / "checkpoint") == 0
    assert run("--to-torch", tmp_path / "checkpoint", back) == 0
    assert capsys.readouterr().out.count(f"{num_classes} classes") == 2
    assert_same(torch.load(back, weights_only=True), expected)


def test_round_trip_without_counters(tmp_path):
    torch.save(arrays(), tmp_path / "x.pth")
    assert run(tmp_path / "x.pth", tmp_path / "checkpoint") == 0
    assert run("--to-torch", tmp_path / "checkpoint", tmp_path / "back.pth") == 0
    assert_same(torch.load(tmp_path / "back.pth", weights_only=True), state_dict())


@pytest.mark.parametrize("num_failures", [1, 9], ids=["failure", "kill"])
def test_interrupted_replacement(num_failures, tmp_path, monkeypatch, capsys):
    """If the second of the two renames fails, or the process dies before it, the old checkpoint is
    found by every command."""
    source, checkpoint = tmp_path / "x.pth", tmp_path / "checkpoints/x"
    torch.save(state_dict(), source)
    assert run(source, checkpoint) == 0
    torch.save(state_dict(7), source)
    replace, failures = os.replace, iter(range(num_failures))

    def failing(old, new):
        if Path(new) == checkpoint and next(failures, None) is not None:
            raise OSError("disk is gone")
        replace(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", failing)
        assert run(source, checkpoint, "--overwrite") == 1
    assert "disk is gone" in capsys.readouterr().err
    assert checkpoint.exists() == (num_failures == 1)
    assert list(find_checkpoints([checkpoint.parent])) == ["x"]
    assert_loads(checkpoint, arrays())
    assert [path.name for path in checkpoint.parent.iterdir()] == ["x"]


def test_a_killed_replacement_is_found_by_name(tmp_path, capsys):
    """A load and the next conversion find the checkpoint that a kill left under a hidden name."""
    source, checkpoint = tmp_path / "x.pth", tmp_path / "x"
    torch.save(state_dict(), source)
    assert run(source, checkpoint) == 0
    hidden = tmp_path / ".x.replaced-by-an_jax"
    checkpoint.rename(hidden)
    assert_loads(checkpoint, arrays())
    assert f"restored {checkpoint}, whose replacement was interrupted\n" == capsys.readouterr().err
    checkpoint.rename(hidden)
    assert run(source, checkpoint) == 1
    assert run("--to-torch", checkpoint, tmp_path / "back.pth") == 0
