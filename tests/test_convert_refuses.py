"""The bridge: what it refuses, with what words, and that nothing is written then."""

import argparse
import functools
import os
import pickle

import orbax.checkpoint as ocp
import pytest
import torch

from tests.test_convert import (
    NAME,
    arrays,
    assert_loads,
    assert_same,
    changed,
    run,
    serialized,
    state_dict,
)


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


def test_a_checkpoint_is_not_replaced_by_a_file(tmp_path, capsys):
    """Not even by its own export."""
    torch.save(state_dict(), tmp_path / "x.pth")
    assert run(tmp_path / "x.pth", tmp_path / "checkpoint") == 0
    arguments = ("--to-torch", "--overwrite")
    assert run(tmp_path / "checkpoint", tmp_path / "checkpoint", *arguments) == 1
    assert "exists and is no file" in capsys.readouterr().err
    assert (tmp_path / "checkpoint/model.json").is_file()
