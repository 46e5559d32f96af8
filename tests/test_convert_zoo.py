"""The conversion of every model of the zoo in both directions, and of AOGNet-V2's files."""

import math
import random

import numpy as np
import pytest
import torch
from flax import nnx

import an_jax
from an_jax import zoo
from an_jax.errors import InputError
from an_jax.nn import Classifier, Conv, GroupNorm, global_avg_pool
from an_jax.summary import describe
from an_jax.zoo.cost import summarize
from convert.__main__ import main
from convert.names import current_names
from convert.recognize import NUM_TENSORS, recognize
from convert.torch_layout import torch_layout
from tests import reference
from tests.test_convert import assert_same

AMBIGUOUS = ["resnet_34_se_bn1", "resnet_34_se_bn2"]
# Model of the older release -> architecture. Where two recipes train the same network,
# tests/fixtures has its tensors and goldens once.
AOGNET_V2 = {
    "aognet-12m-imagenet": "aognet_12m_bn",
    "aognet-12m-an-imagenet": "aognet_12m_an",
    "aognet-40m-imagenet": "aognet_40m_bn",
    "aognet-40m-an-imagenet": "aognet_40m_an",
    "aognet-12m-imagenet-200e-lbsmth-mixup": "aognet_12m_bn",
    "aognet-12m-an-imagenet-200e-lbsmth-mixup": "aognet_12m_an",
    "aognet-40m-imagenet-200e-lbsmth-mixup": "aognet_40m_bn",
    "aognet-40m-an-imagenet-200e-lbsmth-mixup": "aognet_40m_an",
    "mobilenetv2-an-imagenet": "mobilenetv2_an",
    "resnet-50-imagenet": "resnet_50_bn",
    "resnet-50-an-imagenet": "resnet_50_an_bn2",
    "resnet-101-imagenet": "resnet_101_bn",
    "resnet-101-an-imagenet": "resnet_101_an",
    "resnet-50-imagenet-200e-lbsmth-mixup": "resnetv1d_50_bn",
    "resnet-50-an-imagenet-200e-lbsmth-mixup": "resnetv1d_50_an",
    "resnet-101-imagenet-200e-lbsmth-mixup": "resnetv1d_101_bn",
    "resnet-101-an-imagenet-200e-lbsmth-mixup": "resnetv1d_101_an",
}


def fixture_name(name):
    name = name.removesuffix("-200e-lbsmth-mixup") if name.startswith("aognet") else name
    return f"aognet_v2/{name}"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Returns a function that runs the command in an empty directory and returns its report."""
    monkeypatch.chdir(tmp_path)

    def convert(*arguments):
        status = main(list(arguments))
        report, errors = capsys.readouterr()
        assert (status, errors) == (0, "")
        return report

    return convert


def shapes(name):
    return {e["key"]: tuple(e["shape"]) for e in reference.manifest(name)["tensors"]}


def tensors(name):
    return {key: torch.tensor(value) for key, value in reference.state_dict(name).items()}


def models(names, fast=frozenset()):
    return pytest.mark.parametrize(
        "name", [pytest.param(n, marks=[] if n in fast else pytest.mark.slow) for n in names]
    )


@models(an_jax.list_models(), fast=an_jax.list_models())
def test_recognize(name):
    if name in AMBIGUOUS:
        with pytest.raises(InputError, match="ambiguous: {} and {} have".format(*AMBIGUOUS)):
            recognize(shapes(name))
    recognized = recognize(shapes(name), name if name in AMBIGUOUS else None)
    assert (recognized.model, recognized.num_classes) == (name, 1000)
    assert [tensor.key for tensor in recognized.layout] == list(shapes(name))
    num_params = sum(math.prod(t.shape) for t in recognized.layout if t.is_param)
    assert num_params == reference.manifest(name)["num_params"]


def test_number_of_tensors():
    """A model that is missing in the table is built for every file."""
    assert NUM_TENSORS.keys() == zoo.ARCHITECTURES.keys() | zoo.OTHER_ARCHITECTURES.keys()
    for name in an_jax.list_models():
        tensors = [key for key in shapes(name) if not key.endswith("num_batches_tracked")]
        assert NUM_TENSORS[name] == len(tensors), name
    for name in zoo.OTHER_ARCHITECTURES:
        tensors = [tensor for tensor in torch_layout(name, 1000) if tensor.path]
        assert NUM_TENSORS[name] == len(tensors), name


class GroupNormNetwork(nnx.Module):
    """A stem, and nothing but a GroupNorm as the only stage."""

    def __init__(self, *, num_classes, in_features, dtype, rngs):
        self.conv1 = Conv(in_features, 4, 3, padding=1, dtype=dtype, rngs=rngs)
        self.layer1 = GroupNorm(4, 2, dtype=dtype)
        self.fc = Classifier(4, num_classes, dtype=dtype, rngs=rngs)

    def features(self, images):
        x = self.conv1(images)
        return [x, self.layer1(x)]

    def __call__(self, images):
        return self.fc(global_avg_pool(self.features(images)[-1]))


def test_group_norm_is_converted_and_counted(monkeypatch):
    architecture = zoo.Architecture(GroupNormNetwork, {}, zoo.Preprocessing(image_size=8))
    monkeypatch.setitem(zoo.OTHER_ARCHITECTURES, "group_norm", architecture)
    layout = torch_layout("group_norm", 10)
    keys = ["conv1.weight", "layer1.weight", "layer1.bias", "fc.weight", "fc.bias"]
    assert sorted(tensor.key for tensor in layout) == sorted(keys)
    assert recognize({tensor.key: tensor.shape for tensor in layout}).model == "group_norm"
    stem, stage, head = summarize("group_norm")
    assert (stage.params, stage.macs, stage.norms) == (8, 2 * 8 * 8 * 4, {"layer1": "GN"})
    assert (stem.norms, head.norms) == ({}, {})
    assert "1 GN" in describe("group_norm")


def test_nearest_model():
    """All differences are listed, whatever the number of tensors."""
    almost = shapes("mobilenetv2_bn") | {"stem.0.weight": (10, 64), "extra": (7,)}
    del almost["classifier.1.bias"], almost["layer1.0.conv.0.0.weight"]
    with pytest.raises(InputError) as error:
        recognize(almost)
    assert str(error.value) == (
        "the tensors do not fit mobilenetv2_bn:\n"
        "  missing (2): layer1.0.conv.0.0.weight; classifier.1.bias\n"
        "  unexpected (1): extra\n"
        "  wrong shape (1): stem.0.weight is (10, 64), not (32, 3, 3, 3)"
    )


def test_unknown_architecture():
    """The nearest model is that with the largest share of common keys, not that with the fewest
    differences, which for a part of a large model is a small one."""
    part = dict(list(shapes("aognet_12m_an").items())[::4])
    message = "26% of the tensors are those of the nearest model, aognet_12m_an;"
    with pytest.raises(InputError, match=f"unknown architecture: {message}"):
        recognize(part)


@pytest.mark.parametrize("name", ["densenet_121_bn", "mobilenetv2_bn"])
def test_number_of_classes(name):
    other = {k: (7, *s[1:]) if s[:1] == (1000,) else s for k, s in shapes(name).items()}
    assert recognize(other)[:2] == (name, 7)


@models(an_jax.list_models())
def test_round_trip(name, run):
    expected = tensors(name)
    torch.save(dict(random.Random(0).sample(list(expected.items()), len(expected))), "x.pth")
    report = run("x.pth", "checkpoint", *(["--model", name] if name in AMBIGUOUS else []))
    assert f"{name}{' (given)' if name in AMBIGUOUS else ''}, 1000 classes" in report
    assert f"{reference.manifest(name)['num_params'] / 1e6:.3f} M" in report
    assert "AOGNet-V2" not in report
    run("--to-torch", "checkpoint", "back.pth")
    assert_same(torch.load("back.pth", weights_only=True), expected)


@pytest.mark.parametrize(
    ("name", "path", "key", "axes"),
    [
        ("resnet_50_an_bn2", "conv1.kernel", "conv1.weight", (2, 3, 1, 0)),
        ("resnet_50_an_bn2", "fc.kernel", "fc.weight", (1, 0)),
        ("resnet_50_an_bn2", "layer1.0.norm2.weight", "layer1.0.AttnBN2d2.weight_", (0, 1)),
        ("mobilenetv2_an", "classifier.1.kernel", "classifier.1.weight", (1, 0)),
        ("mobilenetv2_an", "layer1.0.conv.0.0.kernel", "layer1.0.conv.0.0.weight", (2, 3, 1, 0)),
        ("densenet_121_bn", "layer1.1.norm.mean", "layer1.1.bn.running_mean", (0,)),
        *(
            ("aognet_12m_an", f"layer3.3.node_10.{path}", key, axes)
            for path, key, axes in (
                ("conv3.kernel", "layer3.3.stage_3_block_2_node_10_op.conv3.weight", (2, 3, 1, 0)),
                ("norm2.var", "layer3.3.stage_3_block_2_node_10_op.bn2.running_var", (0,)),
            )
        ),
    ],
)
def test_keys_and_axes(name, path, key, axes):
    tensor = next(tensor for tensor in torch_layout(name, 1000) if tensor.path == path)
    assert tensor.key == key
    value = np.random.default_rng(0).standard_normal(tensor.shape, np.float32)
    np.testing.assert_array_equal(tensor.from_torch(value), value.transpose(axes))
    np.testing.assert_array_equal(tensor.to_torch(value.transpose(axes)), value)


def test_every_model_of_aognet_v2_is_there():
    assert len(AOGNET_V2) == 17
    assert sorted({fixture_name(name) for name in AOGNET_V2}) == reference.AOGNET_V2


@models(AOGNET_V2, fast=AOGNET_V2)
def test_names_of_aognet_v2(name):
    """The renamed tensors are those of the newer release, in the same order."""
    old = shapes(fixture_name(name))
    renamed = {new: old[key] for key, new in current_names(old).items()}
    assert list(renamed.items()) == list(shapes(AOGNET_V2[name]).items())


@models(an_jax.list_models(), fast=an_jax.list_models())
def test_current_names_stay(name):
    assert all(old == new for old, new in current_names(shapes(name)).items())


@models(AOGNET_V2, fast={"mobilenetv2-an-imagenet"})
def test_checkpoint_of_aognet_v2(name, run):
    """A file as training wrote it: wrapped, prefixed, all but plain BatchNorm in float16."""
    original = tensors(fixture_name(name))
    attentive = {key.removesuffix("weight_") for key in original if key.endswith("weight_")}
    stored = {}
    for key, tensor in original.items():
        parent = key[: key.rindex(".") + 1]
        plain_norm = f"{parent}running_var" in original and parent not in attentive
        is_half = tensor.is_floating_point() and not plain_norm
        stored[key] = tensor.half() if is_half else tensor
    assert torch.float16 in {tensor.dtype for tensor in stored.values()}
    content = {
        "epoch": 120,
        "arch": name,
        "state_dict": {f"module.network.{key}": tensor for key, tensor in stored.items()},
        "best_prec1": np.float64(77.7),
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}]},
    }
    torch.save(content, "model_best.pth.tar")
    report = run("model_best.pth.tar", "checkpoint")
    renamed = name not in ("resnet-50-imagenet", "resnet-101-imagenet")
    assert ("under AOGNet-V2's names" in report) == renamed
    assert f"{AOGNET_V2[name]}, 1000 classes" in report
    run("--to-torch", "checkpoint", "back.pth")
    names = current_names(stored)
    expected = {names[k]: t.float() if t.is_floating_point() else t for k, t in stored.items()}
    assert_same(torch.load("back.pth", weights_only=True), expected)


@pytest.mark.parametrize(
    ("both", "clash"),
    [
        (("features.0.0.weight", "stem.0.weight"), "are both names of 'stem.0.weight'"),
        (("layer1.0.bn2.weight_", "layer1.0.AttnBN2d2.weight_"), "'layer1.0.AttnBN2d2.weight_'"),
    ],
)
def test_two_names_of_one_tensor(both, clash):
    with pytest.raises(InputError, match=clash):
        current_names(both)


@pytest.mark.parametrize(
    "key",
    [
        *("features.0.weight", "features.19.0.weight", "features.x", "features.1.convolution.x"),
        *("layer1.0.shortcut.0.weight", "stage9.stage_9", "stage1.0.weight", "bn1.", "", "."),
        *("stem.0.conv1.weight", "shortcut.conv.weight", "attention_weightsx", "conv1.0.bias"),
    ],
)
def test_names_of_others_stay(key):
    assert current_names([key]) == {key: key}
