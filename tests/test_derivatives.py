"""Derivatives of the networks: forward and reverse mode, of both orders, and vmap over weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from an_jax import functional, zoo
from an_jax.nn import (
    AttentiveNorm,
    BatchNorm,
    Conv,
    Options,
    Sequential,
    SqueezeExcite,
    avg_pool,
    avg_pool_ceil,
    max_pool,
)
from an_jax.nn.convolution import convolve
from tests import reference
from tests.goldens import models


class SmallNetwork(nnx.Module):
    """Every kind of convolution, pooling and norm, and Squeeze-Excitation."""

    def __init__(self):
        options = Options(dtype=jnp.float64, rngs=nnx.Rngs(0))
        self.layers = Sequential(
            [
                Conv(3, 4, 3, stride=2, padding=1, **options),
                AttentiveNorm(4, 2, **options),
                functools.partial(max_pool, window=2, stride=2),
                Conv(4, 4, 1, stride=2, **options),
                BatchNorm(4, **options),
                Conv(4, 4, 2, padding=1, groups=4, **options),  # depthwise
                avg_pool_ceil,
                Conv(4, 4, 1, groups=2, **options),
                SqueezeExcite(4, 2, **options),
                avg_pool,
            ]
        )

    def __call__(self, images):
        return self.layers(images)


def draw(like, seed):
    """Normal values of the same shapes."""
    leaves, treedef = jax.tree.flatten(like)
    rng = np.random.default_rng(seed)
    return treedef.unflatten([rng.standard_normal(leaf.shape) for leaf in leaves])


def dot(a, b):
    return sum(np.vdot(*pair) for pair in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def make_loss(split):
    """A function of the parameters and images, in training mode."""

    def loss(params, images):
        state = (split.definition, params, split.batch_stats)
        return jnp.sum(jnp.sin(functional.apply_train(*state, images, None)[0]))

    return loss


def shifted(at, direction, step):
    return jax.tree.map(lambda a, b: np.asarray(a) + step * b, at, direction)


def check_derivatives(split):
    """Compares forward with reverse mode, and Hessian-vector products with one another."""
    images = reference.images(2, 32).astype(np.float64)
    at = (shifted(split.params, draw(split.params, 0), 0.1), images)
    v, w = draw(at, 1), draw(at, 2)

    # Unoptimized programs compile in half the time.
    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def run(at, direction):
        return jax.jvp(jax.value_and_grad(make_loss(split), argnums=(0, 1)), at, direction)

    (_, gradient), (slope, hessian_v) = run(at, v)
    np.testing.assert_allclose(slope, dot(gradient, v), rtol=1e-9)
    np.testing.assert_allclose(dot(w, hessian_v), dot(v, run(at, w)[1][1]), rtol=1e-9)
    return run, at, v


def test_modes_agree(float64):
    run, at, v = check_derivatives(functional.split(SmallNetwork()))
    slopes = [run(shifted(at, v, step), v)[1][0] for step in (-1e-6, 1e-6)]
    curvature = dot(v, run(at, v)[1][1])
    np.testing.assert_allclose((slopes[1] - slopes[0]) / 2e-6, curvature, rtol=1e-4)


@pytest.mark.slow
@models(fast=(), names=("resnet_20_an_bn1", "mobilenetv2_an", "densenet_121_an", "aognet_12m_an"))
def test_modes_agree_on_networks(name, float64, clear_caches):
    split = functional.split(zoo.create_model(name, num_classes=3, dtype=jnp.float64))
    check_derivatives(split)
    members = [shifted(split.params, draw(split.params, seed), 0.1) for seed in (3, 4)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *members)
    # Batch statistics of two images with maps of one pixel would amplify rounding.
    images = reference.images(8, 32).astype(np.float64)
    run = jax.value_and_grad(make_loss(split))
    losses, gradients = jax.jit(jax.vmap(run, (0, None)))(stacked, images)
    for i, member in enumerate(members):
        loss, gradient = jax.jit(run)(member, images)
        np.testing.assert_allclose(losses[i], loss, rtol=1e-9)
        largest = max(np.abs(leaf).max() for leaf in gradient.values())
        for path, expected in gradient.items():  # some, before a norm, are zero
            np.testing.assert_allclose(gradients[path][i], expected, rtol=0, atol=1e-9 * largest)


def pooled(x, kernel):
    return max_pool(convolve(x, kernel, 2, 1, 1), 2, 2)


def test_linearize(float64):
    @jax.jit
    def run(at, v):
        y, linear = jax.linearize(pooled, *at)
        transposed = jax.linear_transpose(linear, *at)(y)
        return y, linear(*v), transposed, jax.jvp(pooled, at, v)

    at = (reference.images(2, 9).astype(np.float64), draw(np.ones((3, 3, 3, 4)), 0))
    v = draw(at, 1)
    y, linear, transposed, (expected, tangent) = run(at, v)
    np.testing.assert_allclose(y, expected, rtol=1e-12)
    np.testing.assert_allclose(linear, tangent, rtol=1e-12)
    np.testing.assert_allclose(dot(transposed, v), dot(y, tangent), rtol=1e-12)


def test_accelerators_lower_second_order_derivatives():
    """Hessian-vector products of the forms that CPUs do not use."""

    def product(at):
        gradient = jax.grad(lambda *at: jnp.sum(pooled(*at) ** 3), (0, 1))
        return jax.jvp(gradient, at, at)[1]

    at = (jnp.ones((2, 9, 9, 3)), jnp.ones((3, 3, 3, 4)))
    for platform in ("tpu", "cuda"):
        text = jax.export.export(jax.jit(product), platforms=[platform])(at).mlir_module()
        assert "select_and_scatter" in text  # of the native pooling
