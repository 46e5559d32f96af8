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
    """Forward mode, reverse mode and forward over reverse agree, also with finite differences."""
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
    step = 1e-6
    slopes = [run(shifted(at, v, sign * step), v)[1][0] for sign in (-1, 1)]
    curvature = (slopes[1] - slopes[0]) / (2 * step)
    np.testing.assert_allclose(dot(v, hessian_v), curvature, rtol=1e-4)


def test_modes_agree(float64):
    check_derivatives(functional.split(SmallNetwork()))


@pytest.mark.slow
@models(fast=(), names=("resnet_20_an_bn1", "mobilenetv2_an", "densenet_121_an", "aognet_12m_an"))
def test_modes_agree_on_networks(name, float64, clear_caches):
    split = functional.split(zoo.create_model(name, num_classes=3, dtype=jnp.float64))
    check_derivatives(split)
    members = [shifted(split.params, draw(split.params, seed), 0.1) for seed in (3, 4)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *members)
    images = reference.images(2, 32).astype(np.float64)
    run = jax.value_and_grad(make_loss(split))
    losses, gradients = jax.jit(jax.vmap(run, (0, None)))(stacked, images)
    for i, member in enumerate(members):
        loss, gradient = jax.jit(run)(member, images)
        np.testing.assert_allclose(losses[i], loss, rtol=1e-9)
        for path, expected in gradient.items():
            scale = 1e-9 * np.abs(expected).max()
            np.testing.assert_allclose(gradients[path][i], expected, rtol=0, atol=scale)


def test_accelerators_lower_second_order_derivatives():
    """Hessian-vector products of the forms that CPUs do not use."""

    def loss(x, kernel):
        return jnp.sum(max_pool(convolve(x, kernel, 2, 1, 1), 2, 2) ** 3)

    def product(at):
        return jax.jvp(jax.grad(loss, (0, 1)), at, at)[1]

    at = (jnp.ones((2, 9, 9, 3)), jnp.ones((3, 3, 3, 4)))
    for platform in ("tpu", "cuda"):
        text = jax.export.export(jax.jit(product), platforms=[platform])(at).mlir_module()
        assert "while" not in text  # the blocks of the CPU form
