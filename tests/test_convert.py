"""The bridge: what is read, that it is exact both ways, and what is said of bad files."""

import argparse
import functools
import io
import os
import pickle
import random
import subprocess
import sys
from collections import OrderedDict

import numpy as np
import orbax.checkpoint as ocp
import pytest
import torch

import an_jax
from an_jax import functional
from an_jax.errors import InputError
from convert.__main__ import main
from convert.recognise import recognise
from convert.torch_layout import torch_layout
from tests import reference

NAME = "resnet_20_an_bn1"
AMBIGUOUS = ["resnet_34_se_bn1", "resnet_34_se_bn2"]


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


def test_round_trip_of_resnet_50(tmp_path, capsys):
    expected = {k: torch.tensor(v) for k, v in reference.state_dict("resnet_50_an_bn2").items()}
    torch.save(shuffled(expected), tmp_path / "x.pth")
    assert run(tmp_path / "x.pth", tmp_path / "checkpoint") == 0
    report = capsys.readouterr().out
    assert "resnet_50_an_bn2, 1000 classes" in report
    assert f"{reference.manifest('resnet_50_an_bn2')['num_params'] / 1e6:.3f} M" in report
    model = an_jax.load_model(tmp_path / "checkpoint")
    for ours, key, axes in (
        (model.conv1.kernel, "conv1.weight", (2, 3, 1, 0)),
        (model.fc.kernel, "fc.weight", (1, 0)),
        (model.layer1[0].norm2.weight, "layer1.0.AttnBN2d2.weight_", (0, 1)),
    ):
        np.testing.assert_array_equal(ours[...], expected[key].permute(axes))
    assert run("--to-torch", tmp_path / "checkpoint", tmp_path / "back.pth") == 0
    assert_same(torch.load(tmp_path / "back.pth", weights_only=True), expected)


@pytest.mark.parametrize("name", an_jax.list_models())
def test_recognise(name):
    shapes = {e["key"]: tuple(e["shape"]) for e in reference.manifest(name)["tensors"]}
    if name in AMBIGUOUS:
        with pytest.raises(InputError, match="ambiguous: {} and {} have".format(*AMBIGUOUS)):
            recognise(shapes)
    found = recognise(shapes, name if name in AMBIGUOUS else None)
    assert (found.model, found.num_classes) == (name, 1000)
    assert [tensor.key for tensor in found.layout] == list(shapes)


@pytest.fixture
def refused(tmp_path, capsys):
    """Checks that a command fails with one message and leaves every file as it was."""

    def snapshot():
        return {p: p.read_bytes() if p.is_file() else None for p in tmp_path.rglob("*")}

    def check(*arguments, message):
        before = snapshot()
        assert run(*arguments) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("error: ") == 1
        assert message in error
        assert snapshot() == before

    return check


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no file"),
        (b"", "it is empty"),
        (b"accuracy: 77 %", "not a torch file: it begins with b'accu'"),
        (b"\x89PNG\r\n\x1a\n", "not a torch file"),
        (pickle.dumps({"epoch": 3}, protocol=2), "not a torch file"),
    ],
    ids=["missing", "empty", "text", "png", "pickle"],
)
def test_no_torch_file(content, message, tmp_path, refused):
    if content is not None:
        (tmp_path / "x.pth").write_bytes(content)
    refused(tmp_path / "x.pth", tmp_path / "checkpoint", message=message)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("kept", [3, 100, 1000, 0.5, 0.9, -100, -1])
def test_truncated(kept, zipped, tmp_path, refused):
    data = serialized(state_dict(), zipped)
    (tmp_path / "x.pth").write_bytes(data[: int(kept * len(data)) if 0 < kept < 1 else kept])
    refused(tmp_path / "x.pth", tmp_path / "checkpoint", message="is truncated, damaged")


def test_changed_byte(tmp_path, refused):
    """A zip file has checksums."""
    data = bytearray(serialized(state_dict()))
    data[len(data) // 2] ^= 1
    (tmp_path / "x.pth").write_bytes(data)
    refused(tmp_path / "x.pth", tmp_path / "checkpoint", message="is truncated, damaged")


class Code:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize(
    "write",
    [
        serialized,
        functools.partial(serialized, zipped=False),
        lambda content: serialized({"state_dict": state_dict(), "hook": content}),
        functools.partial(pickle.dumps, protocol=2),
        functools.partial(pickle.dumps, protocol=4),
    ],
    ids=["zip", "legacy", "beside", "protocol2", "protocol4"],
)
def test_code_is_not_run(write, tmp_path, refused):
    (tmp_path / "x.pth").write_bytes(write(Code(tmp_path / "made")))
    message = "would run code when read: it needs 'posix.system'"
    refused(tmp_path / "x.pth", tmp_path / "checkpoint", message=message)
    assert not (tmp_path / "made").exists()


@pytest.mark.filterwarnings("ignore")  # torch deprecates TorchScript
def test_torchscript(tmp_path, refused):
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), tmp_path / "x.pth")
    refused(tmp_path / "x.pth", tmp_path / "checkpoint", message="is a TorchScript archive")


FC = torch.ones(10, 64)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(make, message, id=name)
        for name, make, message in (
            (
                "namespace",
                lambda: {"state_dict": state_dict(), "args": argparse.Namespace(lr=0.1)},
                "would run code when read: it needs 'argparse.Namespace'",
            ),
            ("module", lambda: torch.nn.Linear(2, 2), "it needs 'torch.nn.modules.linear.Linear'"),
            ("epoch", lambda: {"epoch": 3}, "no state dict: its entries epoch are no tensors"),
            ("list", lambda: [FC], "holds a list, not a state dict"),
            ("empty", dict, "holds a dict, not a state dict"),
            ("unknown", lambda: dict.fromkeys("abcdef", FC), "unknown architecture: of 6 tensors"),
            (
                "keys",
                lambda: changed(layer1__0__conv1__weight=None, extra=FC, bn1__weight=FC),
                "do not fit resnet_20_an_bn1:\n"
                "  missing (1): layer1.0.conv1.weight\n"
                "  unexpected (1): extra\n"
                "  wrong shape (1): bn1.weight is (10, 64), not (16,)\n",
            ),
            (
                "values",
                lambda: changed(
                    fc__weight=FC * torch.nan,
                    fc__bias=torch.tensor([torch.inf] * 2 + [1.0] * 8),
                    bn1__weight=torch.ones(16, dtype=torch.int32),
                    bn1__bias=torch.ones(16, dtype=torch.float64),
                ),
                "unusable tensors:\n"
                "  bn1.weight is torch.int32, not float32, float16 or bfloat16\n"
                "  bn1.bias is torch.float64, not float32, float16 or bfloat16\n"
                "  fc.weight has 640 NaN or infinite values\n"
                "  fc.bias has 2 NaN or infinite values\n",
            ),
            ("sparse", lambda: changed(fc__weight=FC.to_sparse()), "fc.weight"),
            ("float8", lambda: changed(fc__weight=FC.to(torch.float8_e4m3fn)), "fc.weight"),
            (
                "counter",
                lambda: changed(bn1__num_batches_tracked=torch.tensor(torch.nan)),
                "bn1.num_batches_tracked",
            ),
        )
    ],
)
def test_unusable_content(make, message, tmp_path, refused):
    torch.save(make(), tmp_path / "x.pth")
    refused(tmp_path / "x.pth", tmp_path / "checkpoint", message=message)


def test_given_model(tmp_path, refused, capsys):
    source, destination = tmp_path / "x.pth", tmp_path / "checkpoint"
    torch.save(state_dict(), source)
    message = "unknown model 'resnet_20_an'; the nearest names are resnet_20_bn, "
    refused(source, destination, "--model", "resnet_20_an", message=message)
    message = "the tensors do not fit resnet_20_bn:\n  missing (36): layer1.0.bn1.weight; "
    refused(source, destination, "--model", "resnet_20_bn", message=message)
    assert run(source, destination, "--model", NAME) == 0
    assert f"{NAME} (given), 10 classes" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run(destination, tmp_path / "back.pth", "--to-torch", "--model", NAME)


def test_existing_destination(tmp_path, refused):
    source, destination, back = (tmp_path / name for name in ("x.pth", "checkpoint", "back.pth"))
    torch.save(state_dict(), source)
    assert run(source, destination) == 0
    assert run("--to-torch", destination, back) == 0
    torch.save(state_dict(7), source)
    refused(source, destination, message="checkpoint exists already; give --overwrite")
    refused("--to-torch", destination, back, message="back.pth exists already; give --overwrite")
    assert run(source, destination, "--overwrite") == 0
    assert_loads(destination, arrays(7), 7)
    assert run("--to-torch", destination, back, "--overwrite") == 0
    assert_same(torch.load(back, weights_only=True), state_dict(7))
    assert sorted(tmp_path.iterdir()) == sorted([source, destination, back])


@pytest.mark.parametrize("direction", [[], ["--to-torch"]])
def test_overwrites_nothing_foreign(direction, tmp_path, refused):
    """A directory that is no checkpoint may be somebody's home."""
    torch.save(state_dict(), tmp_path / "x.pth")
    assert run(tmp_path / "x.pth", tmp_path / "checkpoint") == 0
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("Attention")
    source = tmp_path / ("checkpoint" if direction else "x.pth")
    refused(*direction, source, home, "--overwrite", message="home")


def test_to_torch_of_no_checkpoint(tmp_path, refused):
    back = tmp_path / "back.pth"
    refused("--to-torch", tmp_path, back, message="it has no model.json")
    refused("--to-torch", tmp_path / "missing", back, message="there is no such directory")
    torch.save(state_dict(), tmp_path / "x.pth")
    refused("--to-torch", tmp_path / "x.pth", back, message="there is no such directory")
    refused(tmp_path / "x.pth", tmp_path / "x.pth" / "checkpoint", message="cannot write")


@pytest.mark.parametrize("error", [OSError, ValueError])
def test_full_disk_for_a_checkpoint(error, tmp_path, refused, monkeypatch):
    """TensorStore raises ValueError."""

    def save_half(self, path, arrays):
        path.mkdir()
        (path / "half").write_bytes(b"OCDBT")
        raise error("disk full")

    torch.save(state_dict(), tmp_path / "x.pth")
    monkeypatch.setattr(ocp.StandardCheckpointer, "save", save_half)
    refused(tmp_path / "x.pth", tmp_path / "checkpoint", message="disk full")


@pytest.mark.parametrize("error", [OSError, RuntimeError])
def test_full_disk_for_a_torch_file(error, tmp_path, refused, monkeypatch):
    """torch.save raises RuntimeError."""

    def save_half(content, path):
        path.write_bytes(b"PK")
        raise error("disk full")

    torch.save(state_dict(), tmp_path / "x.pth")
    assert run(tmp_path / "x.pth", tmp_path / "checkpoint") == 0
    monkeypatch.setattr(torch, "save", save_half)
    refused("--to-torch", tmp_path / "checkpoint", tmp_path / "back.pth", message="disk full")


def test_command(tmp_path):
    torch.save(state_dict(), tmp_path / "x.pth")
    command = [sys.executable, "-m", "convert", "--model", NAME, "x.pth", "checkpoint"]
    environment = {**os.environ, "PYTHONPATH": str(reference.FIXTURES.parents[1])}
    options = {"env": environment, "cwd": tmp_path, "capture_output": True, "text": True}
    done = subprocess.run(command, **options)
    assert (done.returncode, done.stderr) == (0, "")
    assert_loads(tmp_path / "checkpoint", arrays())


def test_a_checkpoint_is_not_replaced_by_a_file(tmp_path, capsys):
    """Not even by its own export."""
    torch.save(state_dict(), tmp_path / "x.pth")
    assert run(tmp_path / "x.pth", tmp_path / "checkpoint") == 0
    arguments = ("--to-torch", "--overwrite")
    assert run(tmp_path / "checkpoint", tmp_path / "checkpoint", *arguments) == 1
    assert "exists and is no file" in capsys.readouterr().err
    assert (tmp_path / "checkpoint/model.json").is_file()
