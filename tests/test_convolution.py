"""The CPU forms of convolution and pooling, compared with XLA's own operations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax import lax
from jax.sharding import PartitionSpec as P

from an_jax import parallel
from an_jax.nn.convolution import convolve
from an_jax.nn.pooling import max_pool

# images, height, width, channels in and out, kernel, stride, padding, groups
CASES = [
    (2, 9, 8, 3, 4, 3, 1, 1, 1),
    (3, 8, 9, 3, 4, 7, 2, 3, 1),
    (2, 9, 8, 6, 5, 1, 1, 0, 1),
    (2, 9, 8, 6, 5, 1, 2, 0, 1),
    (2, 9, 8, 6, 5, 1, 1, 1, 1),  # padded, and so no matrix product
    (2, 9, 8, 6, 6, 3, 1, 1, 6),
    (2, 9, 8, 6, 6, 3, 2, 1, 6),
    (2, 8, 9, 6, 6, 3, 2, 1, 6),
    (2, 1, 1, 6, 6, 3, 2, 1, 6),
    (2, 8, 9, 6, 6, 3, 1, 1, 3),
]

KINDS = pytest.mark.parametrize(
    "case", [CASES[0], CASES[2], CASES[5]], ids=["3x3", "1x1", "depthwise"]
)


def native(x, kernel, stride, padding, groups):
    return lax.conv_general_dilated(
        *(x, kernel, (stride, stride), ((padding, padding),) * 2),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients(case):
    n, height, width, c_in, c_out, size, *options = case
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x = jnp.asarray(rng.standard_normal((n, height, width, c_in)))
        kernel = jnp.asarray(rng.standard_normal((size, size, c_in // options[2], c_out)))
        expected, expected_back = jax.vjp(lambda x, k: native(x, k, *options), x, kernel)
        actual, back = jax.vjp(jax.jit(lambda x, k: convolve(x, k, *options)), x, kernel)
        gradient = jnp.asarray(rng.standard_normal(expected.shape))
        actual = (actual, *jax.jit(back)(gradient))
        expected = (expected, *jax.jit(expected_back)(gradient))
        for ours, theirs in zip(actual, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-11)


@KINDS
def test_bfloat16_errors_are_one_rounding(case):
    """On maps of many pixels, where sums in bfloat16 would be off by several percent."""
    _, _, _, c_in, c_out, size, *options = case
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.uniform(0, 1, (4, 40, 40, c_in)), jnp.bfloat16)
    kernel = jnp.asarray(rng.uniform(0, 1, (size, size, c_in // options[2], c_out)), jnp.bfloat16)

    def gradients(x, kernel, convolution):
        y, back = jax.vjp(lambda x, k: convolution(x, k, *options), x, kernel)
        return y, *back(jnp.ones_like(y))

    found = jax.jit(gradients, static_argnums=2)(x, kernel, convolve)
    expected = gradients(x.astype(jnp.float32), kernel.astype(jnp.float32), native)
    for ours, exact in zip(found, expected, strict=True):
        assert ours.dtype == jnp.bfloat16
        np.testing.assert_allclose(ours.astype(jnp.float32), exact, rtol=2**-8)  # one rounding


@KINDS
def test_gradients_of_replicated_kernels_are_summed_over_devices(case):
    """Under jax.shard_map, the convolution itself casts the replicated kernel to vary."""
    _, height, width, c_in, c_out, size, *options = case
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((4, height, width, c_in)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((size, size, c_in // options[2], c_out)), jnp.float32)

    def gradient(kernel, x, convolution=convolve):
        return jax.grad(lambda k: jnp.sum(convolution(x, k, *options) ** 2))(kernel)

    mesh = parallel.make_mesh(devices=jax.devices()[:2])
    sharded = jax.shard_map(gradient, mesh=mesh, in_specs=(P(), P(mesh.axis_names)), out_specs=P())
    np.testing.assert_allclose(
        jax.jit(sharded)(kernel, x), gradient(kernel, x, native), rtol=1e-4, atol=1e-4
    )


@KINDS
def test_vmap_over_kernels(case, float64):
    """With gradients of each result, and with the gradient of their sum."""
    n, height, width, c_in, c_out, size, *options = case
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, height, width, c_in))
    kernels = rng.standard_normal((2, size, size, c_in // options[2], c_out))

    def loss(x, kernel, convolution=convolve):
        return jnp.sum(jnp.sin(convolution(x, kernel, *options)))

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def gradients(x, kernels):
        inside = jax.vmap(jax.grad(loss, (0, 1)), (None, 0))(x, kernels)
        outside = jax.grad(lambda k: jnp.sum(jax.vmap(loss, (None, 0))(x, k)))(kernels)
        one_by_one = [jax.grad(loss, (0, 1))(x, kernel, native) for kernel in kernels]
        return inside, outside, one_by_one

    (by_x, by_kernel), outside, one_by_one = gradients(x, kernels)
    for i, (expected_by_x, expected_by_kernel) in enumerate(one_by_one):
        np.testing.assert_allclose(by_x[i], expected_by_x, rtol=0, atol=1e-11)
        np.testing.assert_allclose(by_kernel[i], expected_by_kernel, rtol=0, atol=1e-11)
        np.testing.assert_allclose(outside[i], expected_by_kernel, rtol=0, atol=1e-11)


@KINDS
def test_any_number_of_images(case):
    """No images, and a symbolic number of images in an exported program."""
    _, height, width, c_in, c_out, size, *options = case
    kernel = jnp.ones((size, size, c_in // options[2], c_out))

    def gradients(x, kernel):
        return jax.grad(lambda x, k: jnp.sum(convolve(x, k, *options) ** 2), (0, 1))(x, kernel)

    empty = jnp.zeros((0, height, width, c_in))
    by_x, by_kernel = gradients(empty, kernel)
    assert by_x.shape == empty.shape
    np.testing.assert_array_equal(by_kernel, np.zeros(kernel.shape))
    (n,) = jax.export.symbolic_shape("n")
    shape = jax.ShapeDtypeStruct((n, height, width, c_in), jnp.float32)
    exported = jax.export.export(jax.jit(gradients), platforms=["cpu", "tpu"])(shape, kernel)
    x = jnp.ones((3, height, width, c_in))
    for ours, expected in zip(exported.call(x, kernel), gradients(x, kernel), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5)


@KINDS
def test_accelerators_get_one_convolution(case):
    n, height, width, c_in, c_out, size, *options = case
    x = jax.ShapeDtypeStruct((n, height, width, c_in), jnp.bfloat16)
    kernel = jax.ShapeDtypeStruct((size, size, c_in // options[2], c_out), jnp.bfloat16)

    def both(x, kernel):
        y, back = jax.vjp(lambda x, k: convolve(x, k, *options), x, kernel)
        return y, back(y)

    for platform in ("tpu", "cuda"):
        text = jax.export.export(jax.jit(both), platforms=[platform])(x, kernel).mlir_module()
        assert text.count("stablehlo.convolution") == 3  # the output and both gradients
        assert "dot_general" not in text
        assert "while" not in text


def test_images_that_do_not_fit_are_refused_when_tracing():
    kernel = jnp.ones((3, 3, 3, 4))
    for images in (jnp.ones((2, 3, 8, 8)), jnp.ones((2, 8, 8, 3), jnp.bfloat16)):
        with pytest.raises(ValueError, match="does not fit"):
            jax.eval_shape(lambda x: convolve(x, kernel, 1, 1, 1), images)


@pytest.mark.parametrize(
    "case", [(9, 8, 3, 2, 1), (8, 8, 2, 2, 0), (7, 9, 2, 2, 0), (8, 7, 3, 2, 1)], ids=str
)
def test_max_pool_and_its_gradient_match_pytorch_on_ties(case):
    height, width, window, stride, padding = case
    rng = np.random.default_rng(0)
    x = np.round(rng.standard_normal((2, height, width, 3))).astype(np.float32)
    y, back = jax.vjp(jax.jit(lambda x: max_pool(x, window, stride, padding)), x)
    theirs = torch.tensor(x).permute(0, 3, 1, 2).requires_grad_()
    expected = torch.nn.functional.max_pool2d(theirs, window, stride, padding)
    gradient = rng.standard_normal(y.shape).astype(np.float32)
    expected.backward(torch.tensor(gradient).permute(0, 3, 1, 2))
    np.testing.assert_array_equal(y, expected.detach().permute(0, 2, 3, 1))
    np.testing.assert_allclose(back(gradient)[0], theirs.grad.permute(0, 2, 3, 1), atol=1e-6)


def test_accelerators_get_the_native_max_pool():
    x = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
    function = jax.jit(jax.grad(lambda x: jnp.sum(max_pool(x, 3, 2, 1) ** 2)))
    text = jax.export.export(function, platforms=["tpu"])(x).mlir_module()
    assert "select_and_scatter" in text


def test_infinities_and_nan_pass_through_max_pool():
    x = np.full((1, 4, 4, 1), -np.inf, np.float32)
    x[0, 0, 0] = np.nan
    y = jax.jit(lambda x: max_pool(x, 2, 2))(x)[0, :, :, 0]
    assert np.isnan(y[0, 0])
    assert np.isneginf(y[1, 1])


def test_gradient_of_max_pool_goes_to_nan():
    x = np.zeros((1, 2, 2, 1), np.float32)
    x[0, 1, 0] = np.nan
    by_x = jax.jit(jax.grad(lambda x: jnp.sum(max_pool(x, 2, 2))))(x)[0, :, :, 0]
    np.testing.assert_array_equal(by_x, [[0, 0], [1, 0]])


def test_max_pool_of_no_images():
    x = np.zeros((0, 4, 4, 2), np.float32)
    assert jax.grad(lambda x: jnp.sum(max_pool(x, 2, 2)))(x).shape == x.shape
