"""Weights under the names of torchvision and timm are those of the zoo, with the same logits."""

import functools
import re

import pytest
import torch

from an_jax.errors import InputError
from convert.names import current_names
from convert.weights_file import read_state_dict
from tests import reference
from tests.goldens import relative_error
from tests.test_convert import assert_same, run
from tests.torch_twins import DenseNet121, ResNet, TimmMobileNetV2, TorchvisionMobileNetV2

TWINS = {
    "resnet_34_bn": functools.partial(ResNet, (3, 4, 6, 3), False),
    "resnet_50_bn": functools.partial(ResNet, (3, 4, 6, 3), True),
    "resnet_101_bn": functools.partial(ResNet, (3, 4, 23, 3), True),
    "mobilenetv2_bn": TorchvisionMobileNetV2,
    "mobilenetv2_bn/timm": TimmMobileNetV2,
    "densenet_121_bn": DenseNet121,
}
SLOW = {"resnet_50_bn", "resnet_101_bn"}

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def load_twin(name):
    """The twin with the reference weights of its architecture, in float64."""
    twin, weights = TWINS[name](), reference.state_dict(name.split("/")[0])
    names = current_names(twin.state_dict())
    assert sorted(names.values()) == sorted(weights)
    twin.load_state_dict({key: torch.from_numpy(weights[new]) for key, new in names.items()})
    return twin.eval()


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in TWINS]
)
def test_logits(name, record_error):
    twin = load_twin(name).double()
    images = torch.from_numpy(reference.images(2, 96)).permute(0, 3, 1, 2).double()
    with torch.inference_mode():
        logits = twin(images)
    golden = reference.golden(name.split("/")[0])["eval_logits_96"]
    assert record_error(relative_error(logits, golden)) <= 1e-6


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        pytest.param("mobilenetv2_bn", "torchvision's", marks=pytest.mark.slow),
        ("mobilenetv2_bn/timm", "timm's"),
        pytest.param("densenet_121_bn", "torchvision's", marks=pytest.mark.slow),
    ],
)
def test_conversion(name, owner, tmp_path, capsys):
    model = name.split("/")[0]
    tensors = load_twin(name).state_dict()
    torch.save(tensors, tmp_path / "x.pth")
    assert run(tmp_path / "x.pth", tmp_path / "checkpoint") == 0
    report = capsys.readouterr().out
    assert f" of them under {owner} names\n" in report
    assert f"recognized  {model}, 1000 classes\n" in report
    assert run(tmp_path / "checkpoint", tmp_path / "back.safetensors", "--to-torch") == 0
    back = read_state_dict(tmp_path / "back.safetensors").tensors
    expected = {key: torch.from_numpy(w) for key, w in reference.state_dict(model).items()}
    assert_same({key: torch.from_numpy(back[key]) for key in expected}, expected)


def test_names_of_densenet_in_the_files_of_torchvision():
    """These have norm.1 for norm1."""
    names = current_names(DenseNet121().state_dict())
    old = {re.sub(r"(denselayer\d+\.(norm|conv))(\d)", r"\1.\3", key): key for key in names}
    assert old.keys() != names.keys()
    assert current_names(old) == {key: names[new] for key, new in old.items()}


def test_timm_resnet50d_is_another_network():
    """Its shapes are those of ResNetV1d, but it pools otherwise. Its shortcut tells."""
    manifest = reference.manifest("aognet_v2/resnet-50-imagenet-200e-lbsmth-mixup")
    ours = [entry["key"] for entry in manifest["tensors"]]
    assert "stem.0.weight" in current_names(ours).values()
    timm = [
        re.sub(r"(layer1\.0\.downsample\.)(\d)", lambda m: f"{m[1]}{int(m[2]) + 1}", key)
        for key in ours
    ]
    with pytest.raises(InputError, match=r"timm's resnet50d .* 3x3 windows, .* 2x2"):
        current_names(timm)
