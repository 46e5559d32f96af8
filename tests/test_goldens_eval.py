"""Logits in evaluation against outputs of the original PyTorch code in float64."""

import jax.numpy as jnp
import pytest

import an_jax
from convert.names import current_names
from convert.recognize import recognize
from tests import reference
from tests.goldens import eval_outputs, models, relative_error

pytestmark = pytest.mark.usefixtures("clear_caches")

# Each kind of stem and block with AN and squeeze-and-excitation, beside those of FAST_V2 and of
# test_float64.
FAST = {
    *("resnet_34_se_bn12", "resnet_50_an_all", "resnet_50_se_bn123"),
    *("resnetv1d_50_an", "densenet_121_an"),
}
# The networks whose tensors have other names in the older release.
FAST_V2 = {
    "aognet_v2/aognet-12m-an-imagenet",
    "aognet_v2/mobilenetv2-an-imagenet",
    "aognet_v2/resnet-50-an-imagenet",
}


def load_aognet_v2(name, dtype):
    old = reference.state_dict(name)
    source = {new: old[key] for key, new in current_names(old).items()}
    model = recognize({key: value.shape for key, value in source.items()}).model
    return reference.load(model, dtype, source)


def check(split, name, size, dtype, tolerance, record_error):
    """Compares the logits, and where the goldens have them, the statistics of each stage."""
    golden = reference.golden(name)
    logits, statistics = eval_outputs(*split, reference.images(2, size))
    assert logits.dtype == dtype
    label = f"{dtype.__name__} eval {size}"
    error = relative_error(logits, golden[f"eval_logits_{size}"])
    assert record_error(error, label) <= tolerance
    if size == 96 and "stage_mean" in golden:
        expected = [golden["stage_mean"], golden["stage_std"]]
        error = relative_error(statistics, expected)
        assert record_error(error, f"{dtype.__name__} stages") <= tolerance


@models(fast=FAST)
def test_float32(name, record_error):
    check(reference.load(name), name, 96, jnp.float32, 1e-5, record_error)


@models(fast=())
def test_float32_at_224_px(name, record_error):
    check(reference.load(name), name, 224, jnp.float32, 1e-5, record_error)


@models(fast={"resnet_34_an_bn12"})
def test_float64(name, float64, record_error):
    check(reference.load(name, jnp.float64), name, 96, jnp.float64, 1e-6, record_error)


@models(fast=())
def test_float64_at_224_px(name, float64, record_error):
    check(reference.load(name, jnp.float64), name, 224, jnp.float64, 1e-6, record_error)


@models(fast=FAST_V2, names=reference.AOGNET_V2)
def test_aognet_v2_float32(name, record_error):
    check(load_aognet_v2(name, jnp.float32), name, 96, jnp.float32, 1e-5, record_error)


@pytest.mark.slow
@pytest.mark.parametrize("name", reference.AOGNET_V2)
def test_aognet_v2_at_224_px(name, record_error):
    check(load_aognet_v2(name, jnp.float32), name, 224, jnp.float32, 1e-5, record_error)


@pytest.mark.slow
@pytest.mark.parametrize("size", [96, 224])
@pytest.mark.parametrize("name", reference.AOGNET_V2)
def test_aognet_v2_float64(name, size, float64, record_error):
    check(load_aognet_v2(name, jnp.float64), name, size, jnp.float64, 1e-6, record_error)


def test_goldens_cover_every_model():
    assert an_jax.list_models() == reference.MODELS
