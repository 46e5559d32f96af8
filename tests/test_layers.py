"""Layers against PyTorch: outputs, gradients, running statistics and initialization."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from flax import nnx

from an_jax import functional, zoo
from an_jax.errors import InputError
from an_jax.models.resnet import BasicBlock, Bottleneck, ResNet
from an_jax.nn import (
    AttentiveNorm,
    BatchNorm,
    Classifier,
    Conv,
    GroupNorm,
    SqueezeExcite,
    avg_pool,
    avg_pool_ceil,
    max_pool,
)
from an_jax.nn.attentive_norm import descriptor, hard_sigmoid
from an_jax.nn.moments import sample_moments
from tests import reference
from tests.goldens import relative_error

FIXTURE = np.load(reference.FIXTURES / "layers.npz")
ATTENTIVE_NORMS = {
    "attn_bn": {},
    "attn_gn": {"num_groups": 8, "num_attention_groups": 1},
    "attn_gn_bn": {"num_groups": 4},
}
PATHS = {
    "weight_": "weight",
    "bias_": "bias",
    "running_mean": "backbone.mean",
    "running_var": "backbone.var",
    "0.weight": "attention.0.kernel",
    "1.weight": "attention.1.scale",
    "1.bias": "attention.1.bias",
    "1.running_mean": "attention.1.mean",
    "1.running_var": "attention.1.var",
}


def nhwc(array):
    return np.moveaxis(np.asarray(array), 1, -1)


def nchw(array):
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 1)))


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def golden(section):
    """Arrays of a section of the fixture, by our path and in our layout."""
    keys = [k for k in FIXTURE if k.startswith(f"{section}/") and not k.endswith("tracked")]
    arrays = {
        PATHS[k.removeprefix(f"{section}/").split(".attention.")[-1]]: FIXTURE[k] for k in keys
    }
    return {p: jnp.asarray(a[:, :, 0, 0].T if a.ndim == 4 else a) for p, a in arrays.items()}


def attentive_norm(name):
    layer = AttentiveNorm(32, 5, **ATTENTIVE_NORMS[name], dtype=jnp.float64, rngs=nnx.Rngs(0))
    definition, params, batch_stats = functional.split(layer)
    state = golden(f"{name}/state")
    assert state.keys() == params.keys() | batch_stats.keys()
    return functional.Split(
        definition, {p: state[p] for p in params}, {p: state[p] for p in batch_stats}
    )


@pytest.mark.parametrize("name", ATTENTIVE_NORMS)
def test_attentive_norm_eval(name, float64, record_error):
    output = functional.apply_eval(*attentive_norm(name), nhwc(FIXTURE["x"]))
    error = relative_error(output, nhwc(FIXTURE[f"{name}/eval"]))
    assert record_error(error) <= 1e-12


@pytest.mark.parametrize("name", ATTENTIVE_NORMS)
def test_attentive_norm_train(name, float64, record_error):
    definition, params, batch_stats = attentive_norm(name)

    @functools.partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
    def loss(params, x):
        output, after = functional.apply_train(definition, params, batch_stats, x, None)
        return jnp.sum(output * nhwc(FIXTURE["cotangent"])), (output, after)

    (_, (output, after)), (gradients, gradient_x) = jax.jit(loss)(params, nhwc(FIXTURE["x"]))
    actual = {"output": output, "x": gradient_x, **after}
    actual |= {f"gradient {path}": value for path, value in gradients.items()}
    expected = {"output": nhwc(FIXTURE[f"{name}/train"]), **golden(f"{name}/after")}
    expected["x"] = nhwc(FIXTURE[f"{name}/train_grad_x"])
    expected |= {f"gradient {p}": v for p, v in golden(f"{name}/train_grad").items()}
    assert actual.keys() == expected.keys()
    errors = {key: relative_error(actual[key], expected[key]) for key in expected}
    assert record_error(max(errors.values())) <= 1e-12, errors


def test_hard_sigmoid():
    x = np.linspace(-5, 5, 101, dtype=np.float32)
    expected = F.hardsigmoid(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(hard_sigmoid(x), expected, atol=1e-7)


def test_attentive_norm_of_one_pixel(float64):
    """The variance counts as 0: the descriptor is mean / sqrt(1e-3)."""
    split = attentive_norm("attn_bn")
    x = normal(4, 1, 1, 32)
    moments = sample_moments(x, split.batch_stats["backbone.mean"])
    np.testing.assert_allclose(descriptor(moments), x[:, 0, 0] / np.sqrt(1e-3), rtol=1e-12)

    def loss(params, x):
        output, _ = functional.apply_train(split.definition, params, split.batch_stats, x, None)
        return jnp.sum(output * normal(*x.shape, seed=1))

    value, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(split.params, x)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((value, gradients)))
    assert np.isfinite(functional.apply_eval(*split, x)).all()


def test_batch_of_one(float64):
    def trace(name):
        split = attentive_norm(name)
        return jax.eval_shape(functools.partial(functional.apply_train, *split), x, None)

    x = normal(1, 7, 5, 32)
    for name in ("attn_bn", "attn_gn_bn"):
        with pytest.raises(ValueError, match="more than one value per channel"):
            trace(name)
    assert trace("attn_gn")[0].shape == x.shape
    with pytest.raises(ValueError, match="more than one value per channel"):
        BatchNorm(32, dtype=jnp.float64)(x[:, :1, :1])


@pytest.mark.parametrize("mean", [0, 100])
def test_batch_norm(mean, record_error):
    """Float32 carries 6e-8 of x: at mean 100, std 3 that is 2e-6 of the normalized output."""
    theirs, ours = torch.nn.BatchNorm2d(16).double(), BatchNorm(16, dtype=jnp.float32)
    scale, bias = normal(2, 16)
    theirs.load_state_dict(
        theirs.state_dict()
        | {"weight": torch.tensor(scale), "bias": torch.tensor(bias)}
        | {"running_mean": torch.full((16,), mean + 1.0)}
    )
    ours.scale[...], ours.bias[...] = jnp.float32(scale), jnp.float32(bias)
    ours.mean[...] = jnp.full(16, mean + 1.0)
    errors = []

    def compare(x):
        x = np.float32(x)
        expected = nhwc(theirs(nchw(np.float64(x))).detach())
        errors.append(relative_error(ours(x), expected))

    for step in range(3):
        compare(mean + 3 * normal(4, 6, 5, 16, seed=step))
        errors.append(relative_error(ours.mean[...], theirs.running_mean.numpy()))
        errors.append(relative_error(ours.var[...], theirs.running_var.numpy()))
    theirs.eval()
    ours.eval()
    compare(mean + 3 * normal(1, 6, 5, 16, seed=3))
    assert record_error(max(errors)) <= (1e-6 if mean == 0 else 5e-6)


def test_batch_norm_bfloat16():
    x = jnp.asarray(5 + normal(4, 6, 5, 16), jnp.bfloat16)
    half, single = (BatchNorm(16, dtype=dtype) for dtype in (jnp.bfloat16, jnp.float32))
    output, expected = half(x), single(x.astype(jnp.float32))
    assert output.dtype == jnp.bfloat16
    np.testing.assert_allclose(output.astype(jnp.float32), expected, rtol=2**-8)
    for ours, theirs in ((half.mean, single.mean), (half.var, single.var)):
        assert ours.dtype == jnp.float32
        np.testing.assert_allclose(ours[...], theirs[...], rtol=1e-6)


@pytest.mark.parametrize("num_groups", [1, 4, 16])
def test_group_norm(num_groups, float64):
    theirs = torch.nn.GroupNorm(num_groups, 16).double()
    ours = GroupNorm(16, num_groups, dtype=jnp.float64)
    scale, bias = normal(2, 16)
    theirs.load_state_dict({"weight": torch.tensor(scale), "bias": torch.tensor(bias)})
    ours.scale[...], ours.bias[...] = scale, bias
    x = 2 + normal(3, 6, 5, 16)
    np.testing.assert_allclose(ours(x), nhwc(theirs(nchw(x)).detach()), atol=1e-12)


def test_constant_channels():
    """Rounding does not make a variance negative, which would give NaN."""
    x = jnp.broadcast_to(1000 + jnp.arange(64.0) / 7, (2, 5, 5, 64))
    assert np.isfinite(GroupNorm(64, 64, dtype=jnp.float32)(x)).all()


def test_group_norm_of_indivisible_channels():
    with pytest.raises(ValueError, match="16 channels do not divide into 5 groups"):
        GroupNorm(16, 5, dtype=jnp.float32)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel_size", [1, 3, 7])
@pytest.mark.parametrize("size", [(9, 8), (8, 9)])
def test_conv(size, kernel_size, stride, float64):
    padding, x = kernel_size // 2, normal(2, *size, 3)
    options = {"stride": stride, "padding": padding}
    conv = Conv(3, 4, kernel_size, **options, dtype=jnp.float64, rngs=nnx.Rngs(0))
    kernel = torch.from_numpy(np.array(conv.kernel[...]).transpose(3, 2, 0, 1))
    expected = nhwc(F.conv2d(nchw(x), kernel, **options))
    np.testing.assert_allclose(conv(x), expected, atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [2, 6])
def test_conv_in_groups(groups, stride, float64):
    options = {"stride": stride, "padding": 1, "groups": groups}
    conv = Conv(6, 12, 3, **options, dtype=jnp.float64, rngs=nnx.Rngs(0))
    kernel = torch.from_numpy(np.array(conv.kernel[...]).transpose(3, 2, 0, 1))
    x = normal(2, 9, 8, 6)
    np.testing.assert_allclose(conv(x), nhwc(F.conv2d(nchw(x), kernel, **options)), atol=1e-12)


@pytest.mark.parametrize("size", [(8, 6), (9, 7), (8, 7), (2, 1), (1, 1)])
def test_pooling(size, float64):
    x = normal(2, *size, 3) - 5  # all negative: a padding of 0 would show
    np.testing.assert_array_equal(
        max_pool(x, 3, 2, padding=1), nhwc(F.max_pool2d(nchw(x), 3, 2, 1))
    )
    averaged = F.avg_pool2d(nchw(x), 2, 2, ceil_mode=True, count_include_pad=False)
    np.testing.assert_allclose(avg_pool_ceil(x), nhwc(averaged), rtol=1e-14)
    if min(size) > 1:
        np.testing.assert_array_equal(max_pool(x, 2, 2), nhwc(F.max_pool2d(nchw(x), 2, 2)))
        np.testing.assert_allclose(avg_pool(x), nhwc(F.avg_pool2d(nchw(x), 2, 2)), rtol=1e-14)
    else:
        for pool in (functools.partial(max_pool, window=2, stride=2), avg_pool):
            with pytest.raises(InputError, match="too small: use larger images"):
                pool(x)


def test_squeeze_excite(float64):
    x, layer = normal(2, 6, 5, 16), SqueezeExcite(16, 4, dtype=jnp.float64, rngs=nnx.Rngs(0))
    w1, w2 = (torch.tensor(np.asarray(layer.fc[i].kernel[...]).T) for i in (0, 2))
    scale = torch.sigmoid(F.linear(F.relu(F.linear(nchw(x).mean((2, 3)), w1)), w2))
    expected = nhwc(nchw(x) * scale[:, :, None, None])
    np.testing.assert_allclose(layer(x), expected, atol=1e-12)


@pytest.mark.parametrize(
    "layer",
    [
        functools.partial(Conv, 16, 16, 3),
        functools.partial(AttentiveNorm, 16, 5),
        functools.partial(GroupNorm, 16, 4),
        functools.partial(SqueezeExcite, 16, 4),
    ],
)
def test_bfloat16(layer):
    def apply(x):
        module = layer(dtype=jnp.bfloat16, rngs=zoo.ShapeOnlyRngs())
        return module(x), nnx.state(module)

    output, state = jax.eval_shape(apply, jnp.ones((2, 4, 4, 16), jnp.bfloat16))
    assert output.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype(jnp.float32)}


def assert_drawn(values, mean, std):
    """Within four standard errors of a normal distribution's mean and standard deviation."""
    assert abs(np.mean(values) - mean) <= 4 * std / np.sqrt(values.size)
    assert abs(np.std(values) / std - 1) <= 4 / np.sqrt(2 * values.size)


def test_initialization():
    options = {"dtype": jnp.float32, "rngs": nnx.Rngs(0)}
    assert_drawn(Conv(64, 128, 3, **options).kernel[...], 0, np.sqrt(2 / (9 * 128)))
    norm = AttentiveNorm(1024, 20, **options)
    assert_drawn(norm.weight[...], 1, 0.1)
    assert_drawn(norm.bias[...], 0, 0.1)
    assert_drawn(norm.attention[0].kernel[...], 0, np.sqrt(2 / 20))
    depthwise = Conv(2048, 2048, 3, groups=2048, **options)
    assert_drawn(depthwise.kernel[...], 0, np.sqrt(2 / (9 * 2048)))
    gaussian = Classifier(256, 1000, std=0.01, **options)
    assert_drawn(gaussian.kernel[...], 0, 0.01)
    assert not np.any(gaussian.bias)
    classifier, excite = Classifier(256, 1000, **options), SqueezeExcite(512, 2, **options)
    for values, limit in (
        (classifier.kernel[...], 256**-0.5),
        (classifier.bias[...], 256**-0.5),
        (excite.fc[0].kernel[...], 512**-0.5),
        (excite.fc[2].kernel[...], 256**-0.5),
    ):
        assert 0.99 * limit <= np.max(np.abs(values)) <= limit
        assert abs(np.std(values) * np.sqrt(3) / limit - 1) <= 0.05


@pytest.mark.parametrize(
    ("block", "last", "attentive"),
    [(BasicBlock, "norm2", ()), (Bottleneck, "norm3", ("norm1", "norm2", "norm3"))],
)
def test_zero_init_of_the_last_norm(block, last, attentive):
    sizes = {"planes": (4,), "num_mixtures": (3,), "num_classes": 2}
    model = ResNet(block, (2,), **sizes, attentive=attentive, rngs=nnx.Rngs(0))
    params = functional.split(model).params
    scales = {p: v for p, v in params.items() if "norm" in p and p.endswith((".scale", ".weight"))}
    scales = {p: v for p, v in scales.items() if ".attention." not in p}
    zero = {path for path, value in scales.items() if not np.any(value)}
    assert zero == {path for path in scales if f".{last}." in path}
    assert not any(np.any(v) for p, v in params.items() if p.endswith(f".{last}.bias"))
