"""Mutated files of weights: each becomes a checkpoint equal to its weights, or one clear error."""

import io

import numpy as np
import pytest
import safetensors
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from an_jax import zoo
from an_jax.errors import InputError
from convert import bridge
from convert.torch_layout import torch_layout
from tests.test_convert import NAME, serialize, state_dict, training_checkpoint

BASES = {
    "zip": serialize(training_checkpoint()),
    "zip_protocol_4": serialize(state_dict(), protocol=4),
    "legacy": serialize(training_checkpoint(), zipped=False),
    "legacy_protocol_5": serialize({"ema": state_dict()}, zipped=False, protocol=5),
    "safetensors": save(state_dict()),
}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Compares with the small models only."""
    monkeypatch.setattr(zoo, "ARCHITECTURES", {})


def convert(path, weights="plain"):
    """Returns what would be written: path -> array, empty after an error."""
    written, error = {}, ""

    def save(_, card, params, batch_stats, **options):
        written.update(params | batch_stats)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bridge, "save_checkpoint", save)
        try:
            bridge.from_torch(path, path.with_name("x"), weights=weights, say=lambda line: None)
        except InputError as caught:
            error = str(caught)
    assert len(error) > 20 if not written else not error
    return written


def read(data):
    """The tensors in a file, as PyTorch or safetensors read it. Checksums protect a zip's."""
    if data.startswith(b"PK"):
        return state_dict()
    if data[8:9] == b"{":
        return safetensors.torch.load(data)
    content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=False)
    return content.get("model", content.get("ema", content))


def assert_equal(written, tensors):
    for tensor in torch_layout(NAME, len(written["fc.bias"])):
        if tensor.path:
            expected = tensor.from_torch(tensors[tensor.key].detach().float().numpy())
            np.testing.assert_array_equal(written[tensor.path], expected)


@st.composite
def mutated_bytes(draw):
    """A file with some changes; half of them in its first bytes, where the structure is."""
    data = bytearray(BASES[draw(st.sampled_from(list(BASES)))])
    for _ in range(draw(st.integers(1, 3))):
        end = draw(st.sampled_from([64, 4096, len(data)]))
        at = draw(st.integers(0, end - 1)) * draw(st.sampled_from([1, -1]))
        size = draw(st.sampled_from([0, 1, 1, 8, 1000]))
        data[at : at + size] = draw(st.sampled_from([b"", b"\0"]) | st.binary(max_size=9))
    return Quiet(bytes(data))


def check_bytes(path, mutation):
    """Converts a file of these bytes."""
    (data,) = mutation.values
    path.write_bytes(data)
    weights = "ema" if b"ema" in data else "plain"
    if written := convert(path, weights):
        assert_equal(written, read(data))


class Code:
    """Needs code when read."""


class Quiet:
    """Values that Hypothesis does not print: they are long."""

    def __init__(self, *values):
        self.values = values


DTYPES = [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.complex64]
VALUES = st.sampled_from([None, 3, 2.5, "x", b"x", [1], {}, {1: 2}, np.float64(3), Code()])


@st.composite
def mutated_contents(draw):
    """A state dict with other keys, types, shapes and values, in some wrapping."""
    original = state_dict(draw(st.sampled_from([10, 10, 1, 1000])))
    tensors = dict(original)
    for _ in range(draw(st.integers(0, 2))):
        key = draw(st.sampled_from(list(original)))
        tensor = original[key]
        match draw(st.integers(0, 6)):
            case 0:
                tensors.pop(key, None)
            case 1:
                tensors[draw(st.text(max_size=5))] = tensor
            case 2:
                tensors[key] = tensor.to(draw(st.sampled_from(DTYPES)))
            case 3:
                tensors[key] = tensor[None] if draw(st.booleans()) else tensor.flatten()[:0]
            case 4:
                tensors[key] = torch.full_like(tensor.double(), draw(st.floats()))
            case 5:
                tensors[key] = torch.nn.Parameter(tensor.double())
            case _:
                tensors[key] = draw(VALUES)
    prefix = draw(st.sampled_from(["", "module.", "a.b.", "."]) | st.text(max_size=3))
    content = {f"{prefix}{key}": tensor for key, tensor in tensors.items()}
    wrappers = st.sampled_from(["state_dict", "net", "ema", "", "x.y"])
    for name in draw(st.lists(wrappers, max_size=5)):
        content = {name: content, **draw(st.dictionaries(st.text(max_size=3), VALUES, max_size=2))}
    return Quiet(tensors, content)


FORMATS = st.tuples(st.booleans(), st.integers(2, 5))  # zipped, protocol


def check_content(path, mutation, options):
    """Converts a file of this content."""
    tensors, content = mutation.values
    path.write_bytes(serialize(content, *options))
    if written := convert(path):
        assert_equal(written, tensors)


def fuzz(num_examples):
    return settings(
        max_examples=num_examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@fuzz(25)
@given(mutated_bytes())
def test_mutated_bytes(tmp_path, mutation):
    check_bytes(tmp_path / "x.pth", mutation)


@fuzz(25)
@given(mutated_contents(), FORMATS)
def test_mutated_contents(tmp_path, mutation, options):
    check_content(tmp_path / "x.pth", mutation, options)


@pytest.mark.slow
@fuzz(2000)
@given(mutated_bytes())
def test_many_mutated_bytes(tmp_path, mutation):
    check_bytes(tmp_path / "x.pth", mutation)


@pytest.mark.slow
@fuzz(2000)
@given(mutated_contents(), FORMATS)
def test_many_mutated_contents(tmp_path, mutation, options):
    check_content(tmp_path / "x.pth", mutation, options)
