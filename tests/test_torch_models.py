"""The models in PyTorch reproduce the golden outputs of the original code in float64."""

import jax
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from an_jax import functional, zoo
from an_jax.benchmark.pytorch.models import COUNTERPARTS, create_torch_model
from an_jax.errors import InputError
from convert.torch_layout import torch_layout
from tests import reference
from tests.goldens import models, relative_error

# One of each kind of block, of norm and of stem; the others run with the slow tests.
FAST = {"resnet_34_se_bn1", "resnet_50_se_bn123", "resnet_50_an_all"}
FAST_TRAINING = {"resnetv1d_50_an", "mobilenetv2_an", "aognet_12m_an"}
TWINS = [name for name in reference.MODELS if not name.startswith("densenet")]
# Models that are not the papers' have no goldens.
OTHERS = [name for name, a in zoo.OTHER_ARCHITECTURES.items() if a.network in COUNTERPARTS]
DROPOUTS = (torch.nn.Dropout, torch.nn.Dropout2d)


pytestmark = pytest.mark.usefixtures("one_torch_thread")


def load_twin(name, dtype=torch.float64):
    model = create_torch_model(name)
    state = {key: torch.from_numpy(value) for key, value in reference.state_dict(name).items()}
    model.load_state_dict(state, strict=True)
    return model.to(dtype, memory_format=torch.channels_last)


def images(n, size, dtype=torch.float64):
    return torch.from_numpy(reference.images(n, size)).permute(0, 3, 1, 2).to(dtype)


@models(fast=FAST, names=TWINS)
def test_eval_logits(name, record_error):
    with torch.inference_mode():
        logits = load_twin(name).eval()(images(2, 96))
    error = relative_error(logits, reference.golden(name)["eval_logits_96"])
    assert record_error(error) <= 1e-6


@models(fast=FAST_TRAINING, names=TWINS)
def test_training(name, record_error):
    model, golden = load_twin(name).train(), reference.golden(name)
    for module in model.modules():
        if isinstance(module, DROPOUTS):
            module.eval()
    logits = model(images(4, 96))
    assert record_error(relative_error(logits.detach(), golden["train_logits"])) <= 1e-6

    F.cross_entropy(logits, torch.from_numpy(reference.labels(4))).backward()
    gradients = {key: parameter.grad for key, parameter in model.named_parameters()}
    entries = reference.manifest(name)["tensors"]
    norms = [gradients[e["key"]].norm() for e in entries if e["kind"] == "param"]
    assert record_error(relative_error(norms, golden["grad_norms"])) <= 1e-5

    for kind in ("running_mean", "running_var"):
        values = [value for key, value in model.state_dict().items() if key.endswith(kind)]
        l2 = golden[f"{kind}_l2"]
        assert abs(float(torch.cat(values).norm()) - l2) <= 1e-6 * l2


@pytest.mark.parametrize("name", OTHERS)
def test_other_models_agree_with_jax(name):
    size = zoo.get_architecture(name).preprocessing.image_size
    model = create_torch_model(name, num_classes=10).eval()
    state = model.state_dict()
    definition, params, batch_stats = functional.split(zoo.abstract_model(name, num_classes=10))
    arrays = {t.path: t.from_torch(state[t.key].numpy()) for t in torch_layout(name, 10) if t.path}
    params, batch_stats = ({path: arrays[path] for path in kind} for kind in (params, batch_stats))
    apply_eval = jax.jit(functional.apply_eval, static_argnums=0)
    expected = apply_eval(definition, params, batch_stats, reference.images(2, size))
    with torch.inference_mode():
        logits = model(images(2, size, torch.float32))
    assert relative_error(logits, np.asarray(expected)) <= 1e-5


@pytest.mark.parametrize("name", ["resnet_20_an_bn1", "mobilenetv2_an", "aognet_12m_an"])
def test_autocast_keeps_channels_last(name):
    model = create_torch_model(name).eval().to(memory_format=torch.channels_last)
    maps = []
    for module in model.modules():
        module.register_forward_hook(lambda module, args, output: maps.append(output))
    inputs = images(2, 64, torch.float32)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        model(inputs)
    large = [y for y in maps if y.ndim == 4 and min(y.shape[1:]) > 1]
    assert all(y.is_contiguous(memory_format=torch.channels_last) for y in large)
    assert {y.dtype for y in large} == {torch.bfloat16}


def test_names_without_twin():
    with pytest.raises(InputError, match="densenet_121_an has no PyTorch counterpart: only"):
        create_torch_model("densenet_121_an")
    with pytest.raises(InputError, match="unknown model 'resnet_51_bn'; the nearest names are"):
        create_torch_model("resnet_51_bn")
