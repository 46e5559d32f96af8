"""The conversion: what it refuses, its error messages, and that it then writes nothing."""

import argparse
import functools
import json
import os
import pickle
import shutil
import zipfile

import orbax.checkpoint as ocp
import pytest
import torch

from an_jax import zoo
from tests.test_convert import (
    NAME,
    arrays,
    assert_loads,
    assert_same,
    run,
    serialize,
    state_dict,
    state_dict_with,
)


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    directory = tmp_path_factory.mktemp("converted")
    torch.save(state_dict(), directory / "x.pth")
    assert run(directory / "x.pth", directory / "checkpoint") == 0
    return directory / "checkpoint"


@pytest.fixture
def refused(tmp_path, capsys):
    """Returns a function that checks that a command fails with one message and changes no file."""

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


@pytest.fixture
def checkpoint(converted, tmp_path):
    """A checkpoint in the test's own directory."""
    return shutil.copytree(converted, tmp_path / "checkpoint")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "x.pth cannot be read: No such file"),
        (b"", "it is empty"),
        (b"accuracy: 77 %", "not a torch file: it begins with b'accu'"),
        (b"\x89PNG\r\n\x1a\n", "not a torch file"),
        (pickle.dumps({"epoch": 3}, protocol=2), "not a torch file"),
    ],
    ids=["missing", "empty", "text", "png", "pickle"],
)
def test_not_a_torch_file(content, message, tmp_path, refused):
    if content is not None:
        (tmp_path / "x.pth").write_bytes(content)
    refused(tmp_path / "x.pth", tmp_path / "checkpoint", message=message)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("state_dict", ["--weights", "ema"], "holds no averaged weights, only 'state_dict'"),
        ("state_dict", ["--weights", "net"], "holds no state dict 'net', only 'state_dict'"),
        (
            "state_dict_ema",
            [],
            "holds only averaged weights ('state_dict_ema'): give --weights ema",
        ),
    ],
)
def test_absent_weights(name, options, message, tmp_path, refused):
    torch.save({name: state_dict()}, tmp_path / "x.pth")
    refused(tmp_path / "x.pth", tmp_path / "checkpoint", *options, message=message)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("kept", [3, 100, 1000, 0.5, 0.9, -100, -1])
def test_truncated(kept, zipped, tmp_path, refused):
    data = serialize(state_dict(), zipped)
    (tmp_path / "x.pth").write_bytes(data[: int(kept * len(data)) if 0 < kept < 1 else kept])
    refused(tmp_path / "x.pth", tmp_path / "checkpoint", message="is truncated, damaged")


def test_changed_byte(tmp_path, refused):
    """torch.load ignores the checksums of a zip file."""
    data = bytearray(serialize(state_dict()))
    data[len(data) // 2] ^= 1
    (tmp_path / "x.pth").write_bytes(data)
    refused(tmp_path / "x.pth", tmp_path / "checkpoint", message="is truncated, damaged")


def test_frame_longer_than_its_pickle(tmp_path, refused):
    """Python's pickle module would read on after the pickle; PyTorch refuses the file."""
    data = bytearray(serialize(state_dict(), zipped=False, protocol=4))
    at = data.index(b"\x80\x04\x95") + 3
    length = int.from_bytes(data[at : at + 8], "little")
    data[at : at + 8] = (length + 1).to_bytes(8, "little")
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
        serialize,
        functools.partial(serialize, zipped=False),
        lambda content: serialize({"state_dict": state_dict(), "hook": content}),
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


class Released(torch.nn.Module):
    """A network of other code, saved as a whole."""

    def state_dict(self):
        return state_dict()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    ("content", "options"),
    [
        (lambda: {"state_dict": state_dict(), "args": argparse.Namespace(lr=0.1)}, {}),
        (Released, {}),
        (lambda: {"model": Released()}, {}),
        (lambda: {"model": Released()}, {"pickle_protocol": 5}),
    ],
    ids=["state_dict", "module", "module_inside", "protocol5"],
)
def test_the_advice_helps(content, options, zipped, tmp_path, capsys):
    """--trust, which the error advises, reads the file."""
    source, destination = tmp_path / "x.pth", tmp_path / "checkpoint"
    torch.save(content(), source, _use_new_zipfile_serialization=zipped, **options)
    assert run(source, destination) == 1
    error = capsys.readouterr().err
    assert "would run code when read: it needs '" in error
    assert "give --trust" in error
    assert run(source, destination, "--trust") == 0
    assert_loads(destination, arrays())


def test_trusted_code_that_is_missing(tmp_path, refused, monkeypatch):
    torch.save({"model": Released()}, tmp_path / "x.pth")
    monkeypatch.delattr("tests.test_convert_refuses.Released")
    message = "add the code that wrote it to PYTHONPATH"
    refused(tmp_path / "x.pth", tmp_path / "checkpoint", "--trust", message=message)
    (tmp_path / "x.pth").write_bytes(serialize(state_dict())[:1000])
    refused(tmp_path / "x.pth", tmp_path / "checkpoint", "--trust", message="x.pth cannot be read")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"dtype": "F32", "shape": [1], "data_offsets": [0, 8]}, "not a safetensors file"),
        ({"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}, "fc.bias is U8"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "unknown architecture"),
    ],
)
def test_safetensors(header, message, tmp_path, refused, monkeypatch):
    """The content tells the format, also where the length of the header looks like a pickle."""
    monkeypatch.setattr(zoo, "ARCHITECTURES", {})
    for name, padding in (("x.pth", 0x80), ("x.safetensors", 0)):
        text = json.dumps({"fc.bias": header}).encode().ljust(padding)
        (tmp_path / name).write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
        refused(tmp_path / name, tmp_path / "checkpoint", message=message)
    (tmp_path / "x.safetensors").write_bytes(text)
    refused(tmp_path / "x.safetensors", tmp_path / "checkpoint", message="not a safetensors file")


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
            ("epoch", lambda: {"epoch": 3}, "no state dict: its entries epoch are not dense"),
            (
                "two",
                lambda: {"teacher": state_dict(), "student": state_dict()},
                "2 state dicts of 182 tensors: 'teacher', 'student'; choose one with --weights",
            ),
            (
                "other_model",
                lambda: {"a": {"b": {f"s.{k}": v for k, v in arrays().items()} | {"t.x": FC}}},
                "152 of 153 keys begin with 's.'; without it and without others such as t.x, "
                "the tensors fit resnet_20_an_bn1",
            ),
            (
                "backbone",
                lambda: {k if k[:2] == "fc" else f"net.0.{k}": v for k, v in arrays().items()},
                "150 of 152 keys begin with 'net.0.'; without it the tensors fit resnet_20_an_bn1",
            ),
            ("list", lambda: [FC], "holds a list, not a state dict"),
            ("empty", dict, "holds a dict, not a state dict"),
            (
                "values",
                lambda: state_dict_with(
                    fc__weight=FC * torch.nan,
                    fc__bias=torch.tensor([torch.inf] * 2 + [1.0] * 8),
                    bn1__weight=torch.ones(16, dtype=torch.int32),
                    bn1__bias=torch.full([16], 1e39, dtype=torch.float64),
                ),
                "unusable tensors:\n"
                "  bn1.weight is int32, not float64, float32, float16, bfloat16\n"
                "  bn1.bias has 16 NaN or infinite values in float32\n"
                "  fc.weight has 640 NaN or infinite values in float32\n"
                "  fc.bias has 2 NaN or infinite values in float32\n",
            ),
            (
                "sparse",
                lambda: state_dict_with(fc__weight=FC.to_sparse()),
                "its entries fc.weight are not dense tensors",
            ),
            ("float8", lambda: state_dict_with(fc__weight=FC.to(torch.float8_e4m3fn)), "fc.weight"),
            (
                "counter",
                lambda: state_dict_with(bn1__num_batches_tracked=torch.tensor(torch.nan)),
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
    for option in (("--model", NAME), ("--weights", "ema"), ("--crop_pct", "1"), ("--trust",)):
        with pytest.raises(SystemExit):
            run(destination, tmp_path / "back.pth", "--to-torch", *option)


def test_existing_destination(checkpoint, tmp_path, refused):
    source, back = tmp_path / "x.pth", tmp_path / "back.pth"
    torch.save(state_dict(7), source)
    torch.save(state_dict(), back)
    refused(source, checkpoint, message="checkpoint exists already; give --overwrite")
    refused("--to-torch", checkpoint, back, message="back.pth exists already; give --overwrite")
    assert run(source, checkpoint, "--overwrite") == 0
    assert_loads(checkpoint, arrays(7), 7)
    assert run("--to-torch", checkpoint, back, "--overwrite") == 0
    assert_same(torch.load(back, weights_only=True), state_dict(7))
    assert sorted(tmp_path.iterdir()) == sorted([source, checkpoint, back])


def test_overwrites_no_foreign_directory(checkpoint, tmp_path, refused):
    """A directory is replaced only if it is a converted checkpoint and holds nothing else."""
    torch.save(state_dict(), tmp_path / "x.pth")
    home = tmp_path / "home"
    (home / "weights").mkdir(parents=True)
    (home / "thesis.tex").write_text("Attention")
    for source, options in (("x.pth", ()), ("checkpoint", ("--to-torch",))):
        message = "choose another destination"
        refused(tmp_path / source, home, "--overwrite", *options, message=message)
    (checkpoint / "thesis.tex").write_text("Attention")
    refused(tmp_path / "x.pth", checkpoint, "--overwrite", message="also holds thesis.tex")
    (checkpoint / "thesis.tex").unlink()
    (checkpoint / "model.json").write_text("{}")
    refused(tmp_path / "x.pth", checkpoint, "--overwrite", message="is not a converted checkpoint")


def test_overwrites_no_foreign_file(checkpoint, tmp_path, refused):
    """A file is replaced only if it has the format that would be written."""
    (tmp_path / "thesis.tex").write_text("Attention")
    with zipfile.ZipFile(tmp_path / "thesis.docx", "w") as archive:
        archive.writestr("document.xml", "Attention")
    for name in ("thesis.tex", "thesis.docx"):
        message = f"{name} exists and is not a .pth file"
        refused("--to-torch", checkpoint, tmp_path / name, "--overwrite", message=message)
    (tmp_path / "x.safetensors").write_text("Attention")
    message = "x.safetensors exists and is not a safetensors file"
    refused("--to-torch", checkpoint, tmp_path / "x.safetensors", "--overwrite", message=message)


def test_source_is_not_a_checkpoint(tmp_path, refused):
    back = tmp_path / "back.pth"
    refused("--to-torch", tmp_path, back, message="it has no model.json")
    refused("--to-torch", tmp_path / "missing", back, message="there is no such directory")
    torch.save(state_dict(), tmp_path / "x.pth")
    refused("--to-torch", tmp_path / "x.pth", back, message="there is no such directory")
    refused(tmp_path / "x.pth", tmp_path / "x.pth" / "checkpoint", message="cannot write")


def test_a_directory_without_weights(tmp_path, refused):
    (tmp_path / "home").mkdir()
    refused(tmp_path / "home", tmp_path / "other", message="home: no file is named *.pth, ")


def test_source_is_a_checkpoint(checkpoint, tmp_path, refused):
    refused(checkpoint, tmp_path / "other", message="to convert a checkpoint, add --to-torch")


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
def test_full_disk_for_a_torch_file(error, checkpoint, tmp_path, refused, monkeypatch):
    """torch.save raises RuntimeError."""

    def save_half(content, path):
        path.write_bytes(b"PK")
        raise error("disk full")

    monkeypatch.setattr(torch, "save", save_half)
    refused("--to-torch", checkpoint, tmp_path / "back.pth", message="disk full")


def test_a_checkpoint_is_not_replaced_by_its_own_export(checkpoint, refused):
    refused(checkpoint, checkpoint, "--to-torch", "--overwrite", message="is not a file")
