"""Dropout: where it is, that a key decides it, and that whole channels go."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from an_jax import functional, zoo
from an_jax.models.aognet import NodeOperator
from tests import reference

apply_train = jax.jit(functional.apply_train, static_argnums=0)


def dropouts(name):
    modules = nnx.iter_modules(zoo.abstract_model(name))
    layers = {".".join(map(str, p)): m for p, m in modules if isinstance(m, nnx.Dropout)}
    return {path: layer.rate for path, layer in layers.items() if layer.rate}


def test_which_models_drop():
    assert dropouts("resnet_50_an_bn2") == dropouts("densenet_121_an") == {}
    assert dropouts("mobilenetv2_bn") == {"classifier.0": 0.2}
    channels = dropouts("aognet_12m_an")
    assert len(channels) == 3 * 21
    assert set(channels.values()) == {0.1}
    assert {path.partition(".")[0] for path in channels} == {"layer3", "layer4"}


def test_a_key_decides():
    split, images = reference.load("mobilenetv2_bn"), reference.images(4, 64)

    def logits(key):
        return apply_train(*split, images, key)[0]

    nothing_dropped, one, two = logits(None), logits(jax.random.key(1)), logits(jax.random.key(2))
    np.testing.assert_array_equal(one, logits(jax.random.key(1)))
    assert not np.allclose(one, two)
    assert not np.allclose(one, nothing_dropped)
    model = functional.merge(*split)
    model.train()
    with pytest.raises(ValueError, match="rngs"):  # never silently without
        model(images)


def test_statistics_after_a_step_with_dropout():
    """What is kept is all statistics, and nothing of the dropout."""
    split = reference.load("mobilenetv2_bn")
    _, stats = apply_train(*split, reference.images(4, 64), jax.random.key(0))
    _, expected = apply_train(*split, reference.images(4, 64), None)
    assert stats.keys() == expected.keys() == split.batch_stats.keys()
    for path, value in stats.items():  # the only dropout comes after the last norm
        np.testing.assert_array_equal(value, expected[path])


def test_whole_channels_are_dropped_and_the_others_scaled():
    options = {"num_mixtures": None, "dtype": jnp.float32, "rngs": nnx.Rngs(0)}
    operator = NodeOperator(64, 64, dropout=0.1, **options)
    split = functional.split(operator)
    x = 10 + jnp.abs(jax.random.normal(jax.random.key(0), (32, 5, 5, 64)))

    def residual(key):
        """What the bottleneck adds to x; x is large enough for the last ReLU to leave it alone."""

        @jax.jit
        def run(params, batch_stats):
            model = functional.merge(split.definition, params, batch_stats)
            model.train()
            model.dropout.deterministic = key is None
            model.dropout.rngs = key
            return model(x, x) - x

        return run(split.params, split.batch_stats)

    whole, some = residual(None), residual(jax.random.key(3))
    dropped = np.all(some == 0, axis=(1, 2))
    assert abs(dropped.mean() - 0.1) <= 4 * np.sqrt(0.09 / dropped.size)
    kept = np.broadcast_to(~dropped[:, None, None, :], whole.shape)
    np.testing.assert_allclose(some[kept], whole[kept] / 0.9, atol=1e-4)
