"""Optimizers, weight decay, gradient clipping and freezing."""

import numpy as np
import optax
import pytest
import torch

from an_jax import functional, zoo
from an_jax.errors import InputError
from an_jax.training import optimizer
from configs import digits

PARAMS = {
    "conv.kernel": np.array([1.0, -2.0], np.float32),
    "norm.bias": np.array([0.5, 3.0], np.float32),
}
GRADIENTS = [
    {"conv.kernel": g * np.float32([1, 2]), "norm.bias": g * np.float32([3, -1])}
    for g in (0.3, -2.0)
]


def train(frozen=frozenset(), gradients=GRADIENTS, **changes):
    """The parameters after updates with a learning rate of 0.1 and a weight decay of 0.2."""
    config = digits.get_config("an")
    config.update({"weight_decay": 0.2} | changes)
    updates_of = optimizer.make_optimizer(config, lambda count: 0.1, frozen)
    params, state = PARAMS, updates_of.init(PARAMS)
    for gradient in gradients:
        updates, state = updates_of.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize(
    ("name", "optimizer", "options"),
    [("sgd", torch.optim.SGD, {"momentum": 0.9}), ("adamw", torch.optim.AdamW, {})],
)
def test_pytorchs_optimizers(name, optimizer, options):
    params = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in PARAMS.items()}
    updates = optimizer(params.values(), lr=0.1, weight_decay=0.2, **options)
    for gradient in GRADIENTS:
        for path, param in params.items():
            param.grad = torch.tensor(gradient[path])
        updates.step()
    for path, value in train(optimizer=name).items():
        np.testing.assert_allclose(value, params[path].detach().numpy(), rtol=1e-6)


def test_lamb():
    """Update of Adam and weight decay, scaled to the parameter's norm (You et al., 2020)."""
    after = train(optimizer="lamb", gradients=GRADIENTS[:1])
    for name, param in PARAMS.items():
        update = np.sign(GRADIENTS[0][name]) + 0.2 * param  # Adam's first update is the sign
        expected = param - 0.1 * np.linalg.norm(param) / np.linalg.norm(update) * update
        np.testing.assert_allclose(after[name], expected, rtol=1e-5)


@pytest.mark.parametrize("name", optimizer.OPTIMIZERS)
def test_weight_decay_on_kernels_only(name):
    zero = [{name: np.zeros(2, np.float32) for name in PARAMS}]
    after = train(optimizer=name, gradients=zero)
    assert all((abs(after[path]) < abs(value)).all() for path, value in PARAMS.items())
    after = train(optimizer=name, gradients=zero, decay_norms_and_biases=False)
    assert (abs(after["conv.kernel"]) < abs(PARAMS["conv.kernel"])).all()
    np.testing.assert_array_equal(after["norm.bias"], PARAMS["norm.bias"])


def test_all_parameters_but_kernels_belong_to_norms_or_are_biases():
    """Attentive Normalization's mixtures are two-dimensional, and its projection is a kernel."""
    params = functional.split(zoo.abstract_model("resnet_20_an_bn1", num_classes=10)).params
    others = {name.split(".")[-1] for name in params} - {"kernel"}
    assert others == {"scale", "bias", "weight"}
    assert params["layer1.0.norm1.weight"].ndim == 2
    assert "layer1.0.norm1.attention.0.kernel" in params


def test_clipping():
    """The norm is that of all gradients together. A smaller one is not changed."""
    gradient = {"conv.kernel": np.float32([3, 0]), "norm.bias": np.float32([0, 4])}
    options = {"gradients": [gradient], "weight_decay": 0.0}
    clipped, whole = train(clip_norm=1.0, **options), train(clip_norm=6.0, **options)
    for name, param in PARAMS.items():
        np.testing.assert_allclose(clipped[name], param - 0.1 * gradient[name] / 5, rtol=1e-6)
        np.testing.assert_array_equal(whole[name], train(**options)[name])


def test_frozen_parameters_do_not_count():
    """They neither change nor decay, and their gradients do not count in the norm to clip."""
    gradient = {"conv.kernel": np.float32([3, 0]), "norm.bias": np.float32([0, 4])}
    after = train(frozenset({"norm.bias"}), [gradient], clip_norm=1.5, weight_decay=0.2)
    np.testing.assert_array_equal(after["norm.bias"], PARAMS["norm.bias"])
    expected = PARAMS["conv.kernel"] * (1 - 0.1 * 0.2) - 0.1 * np.float32([1.5, 0])
    np.testing.assert_allclose(after["conv.kernel"], expected, rtol=1e-6)


@pytest.mark.parametrize(("name", "peak"), [("sgd", 0.05), ("adamw", 0.1), ("lamb", 0.1)])
def test_peak_learning_rate(name, peak):
    config = digits.get_config("an")
    config.update({"learning_rate": 0.2, "batch_size": 64, "optimizer": name})
    assert optimizer.peak_learning_rate(config) == peak


def test_patterns_of_names():
    split = functional.split(zoo.abstract_model("resnet_20_an_bn1", num_classes=10))
    names = split.params.keys() | split.batch_stats.keys()
    assert optimizer.find_frozen("", split) == set()
    assert optimizer.find_frozen("(?!fc)", split) == names - {"fc.kernel", "fc.bias"}
    frozen = optimizer.find_frozen("conv1|layer1", split)
    assert {"conv1.kernel", "layer1.0.norm1.backbone.mean"} <= frozen
    assert "layer2.0.conv1.kernel" not in frozen
    for pattern, amount in (("head", "none"), ("[a-z]", "all")):
        message = rf"freeze: '.*' matches {amount} of the model's \d+ .* are like conv1.kernel"
        with pytest.raises(InputError, match=message):
            optimizer.find_frozen(pattern, split)
