"""The recipes: their parts equal the reference's, and every model has a configuration."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from absl import flags

import an_jax
from an_jax.errors import InputError
from an_jax.training import optimizer
from an_jax.training.config import check_config
from an_jax.training.norm_groups import make_norm_groups
from an_jax.training.targets import mixup, smooth_targets
from an_jax.zoo.released import RELEASED
from configs import digits, imagenet, imagenet_200e_ls_mixup
from tests.reference import FIXTURES

RECIPE = json.loads((FIXTURES / "recipe.json").read_text())
RECIPES = {"imagenet": imagenet, "imagenet_200e_ls_mixup": imagenet_200e_ls_mixup}


@pytest.mark.parametrize(
    ("name", "epochs", "steps", "peak"),
    [
        ("lr_cosine_E8_n7_base0.8", 8, 7, 0.8),
        ("lr_cosine_E120_n626_base0.8", 120, 626, 0.8),
        ("lr_cosine_E150_n1252_base0.2", 150, 1252, 0.2),
    ],
)
def test_learning_rate(name, epochs, steps, peak):
    with jax.enable_x64(True):
        schedule = optimizer.cosine_schedule(peak, steps, epochs, warmup_epochs=5)
        rates = schedule(jnp.array(RECIPE[name]["iteration"]))
    np.testing.assert_allclose(rates, RECIPE[name]["lr"], rtol=1e-9)


def test_learning_rate_without_warmup_starts_at_the_peak():
    schedule = optimizer.cosine_schedule(0.4, steps_per_epoch=10, num_epochs=3, warmup_epochs=0)
    assert schedule(0) == pytest.approx(0.4)
    assert schedule(30) == pytest.approx(1e-6, rel=1e-2)


def test_sgd_is_pytorchs():
    golden = RECIPE["sgd_momentum_wd"]
    with jax.enable_x64(True):
        sgd = optimizer.sgd(golden["lr"], golden["momentum"], golden["weight_decay"])
        params = jnp.array(golden["params"][0])
        state = sgd.init(params)
        for gradient, expected in zip(golden["grads"], golden["params"][1:], strict=True):
            updates, state = sgd.update(jnp.array(gradient), state, params)
            params = optax.apply_updates(params, updates)
            np.testing.assert_allclose(params, expected, rtol=1e-12)


@pytest.mark.parametrize(
    "name", ["mixup_lam0.3_ls0.1", "mixup_lam0.75_ls0.0", "mixup_lam1.0_ls0.1"]
)
def test_mixup(name):
    """Mixed pixels equal, bit for bit, those that the reference's input pipeline stores."""
    golden = RECIPE[name]
    images = np.moveaxis(np.array(golden["images_uint8"], np.uint8), 1, -1)
    targets = smooth_targets(
        jnp.array(golden["labels"]), golden["num_classes"], golden["smoothing"]
    )
    mixed, targets = jax.jit(mixup)(images, targets, jnp.float32(golden["lam"]))
    np.testing.assert_array_equal(np.moveaxis(mixed, -1, 1), golden["mixed_uint8"])
    np.testing.assert_allclose(targets, golden["targets"], atol=6e-8)
    losses = optax.softmax_cross_entropy(jnp.array(golden["logits"], jnp.float32), targets)
    assert float(losses.mean()) == pytest.approx(golden["soft_target_ce"], rel=1e-6)


def test_mixup_rounds_ties_to_even():
    """Mixup rounds sums that end in exactly one half to even; a fused multiply-add would not."""
    images = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 3), np.uint8)
    mix = jax.jit(mixup)
    for lam in np.arange(21, dtype=np.float32) / 20:
        expected = lam * np.float32(images) + (1 - lam) * np.float32(images[::-1])
        mixed, _ = mix(images, jnp.zeros((64, 2)), lam)
        np.testing.assert_array_equal(mixed, np.round(expected))


def test_label_smoothing():
    golden = RECIPE["label_smoothing_ce_0.1"]
    targets = smooth_targets(jnp.array(golden["labels"]), len(golden["logits"][0]), 0.1)
    losses = optax.softmax_cross_entropy(jnp.array(golden["logits"], jnp.float32), targets)
    assert float(losses.mean()) == pytest.approx(golden["loss"], rel=1e-6)


def test_plain_targets_are_the_labels():
    np.testing.assert_array_equal(smooth_targets(jnp.array([2, 0]), 3, 0.0), np.eye(3)[[2, 0]])


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("model", an_jax.list_models())
def test_every_model_has_a_configuration(recipe, model):
    """Each configuration is valid on the papers' 8 devices and has their peak learning rate."""
    config = RECIPES[recipe].get_config(model)
    check_config(config, num_devices=8)
    assert config.model == model
    mobile, large = model.startswith("mobilenetv2"), "101" in model or "40m" in model
    assert config.batch_size == (1024 if mobile or large else 2048)
    peak = config.learning_rate * config.batch_size / 256
    assert peak == pytest.approx(0.2 if mobile else 0.4 if large else 0.8)
    # The papers' 8 GPUs each took statistics of their own images.
    assert make_norm_groups(config.batch_size, config.norm_batch_size, 8)[1:] == (1, 1)
    assert config.weight_decay == (4e-5 if mobile else 1e-4)


@pytest.mark.parametrize("name", RELEASED)
def test_configurations_are_the_published_recipes(name):
    released = RELEASED[name]
    config = RECIPES[released.recipe.name].get_config(released.architecture)
    found = (config.num_epochs, config.label_smoothing, config.mixup)
    assert found == released.recipe[1:]


def test_an_unknown_model_is_refused():
    with pytest.raises(flags.IllegalFlagValueError, match=r"nearest names are .*resnet_50_bn"):
        imagenet.get_config("resnet_50_an")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "resnet_20"}, "nearest names are .*resnet_20_bn"),
        ({"dtype": "float16"}, "dtype must be float32 or bfloat16; it is float16"),
        ({"batch_size": 12}, "must be a multiple of the number of devices, 8, .* it is 12"),
        ({"batch_size": 8}, "at least 2 images for each; it is 8"),
        ({"num_epochs": 0}, "num_epochs must be above warmup_epochs; they are 2 and 0"),
        ({"norm_batch_size": 24}, "divide batch_size, 64; it is 24: choose 16 or 32"),
        ({"norm_batch_size": 0}, "it is 0: choose 2 or 4"),
        ({"label_smoothing": 1.0}, "label_smoothing must be in"),
        ({"mixup": -0.1}, "mixup at least 0"),
        ({"crop_scale": (0.5, 0.1)}, "crop_scale must be two increasing numbers"),
        ({"optimizer": "adam"}, "optimizer must be one of sgd, adamw, lamb; it is adam"),
        ({"clip_norm": -1.0}, r"clip_norm must be at least 0 .*; they are -1.0 and 0.0"),
        ({"randaugment_number": -1}, "randaugment_number must be at least 0 .*; they are -1 and 9"),
        ({"randaugment_magnitude": 15.0}, r"randaugment_magnitude in \[0, 10\]; .* 0 and 15.0"),
        ({"random_erasing": 2.0}, r"random_erasing must be in \[0, 1\]; it is 2.0"),
        ({"ema": 1.0}, r"ema in \[0, 1\); they are 0.0 and 1.0"),
        ({"freeze": "layer(1"}, r"freeze must be a regular expression; 'layer\(1' is not: missing"),
        ({"seed": -1}, "seed must be at least 0; it is -1"),
        ({"log_steps": 0}, "log_steps must be at least 1; it is 0"),
        ({"keep_checkpoints": 0}, "keep_checkpoints must be at least 1"),
    ],
)
def test_an_impossible_configuration_is_refused(changes, message):
    config = digits.get_config("an")
    config.update(changes)
    with pytest.raises(InputError, match=message):
        check_config(config, num_devices=8)


def test_a_configuration_needs_no_tensorflow():
    """configs/ imports neither TensorFlow, PyTorch nor orbax."""
    code = "import sys; from configs import imagenet; imagenet.get_config(); "
    code += "print({'tensorflow', 'torch', 'orbax'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
