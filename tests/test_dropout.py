"""Dropout: which models have it, that the key determines it, and that AOGNets drop channels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from an_jax import functional, parallel, zoo
from an_jax.models.aognet import NodeOperator
from an_jax.nn import BatchNorm, Classifier, Dropout
from an_jax.training.optimizer import sgd
from an_jax.training.step import init_state, make_train_step
from tests import reference

apply_train = jax.jit(functional.apply_train, static_argnums=0)


def dropouts(name):
    modules = nnx.iter_modules(zoo.abstract_model(name))
    layers = {".".join(map(str, p)): m for p, m in modules if isinstance(m, Dropout)}
    return {path: layer.rate for path, layer in layers.items() if layer.rate}


def test_which_models_drop():
    assert dropouts("resnet_50_an_bn2") == dropouts("densenet_121_an") == {}
    assert dropouts("mobilenetv2_bn") == {"classifier.0": 0.2}
    channels = dropouts("aognet_12m_an")
    assert len(channels) == 3 * 21
    assert set(channels.values()) == {0.1}
    assert {path.partition(".")[0] for path in channels} == {"layer3", "layer4"}


@pytest.mark.parametrize("name", ["mobilenetv2_bn", "aognet_12m_an"])
def test_training_without_a_key_is_refused(name):
    """Dropout in training mode without a key raises an error instead of doing nothing."""
    split = functional.split(zoo.abstract_model(name))

    def train(params, batch_stats, images):
        model = functional.merge(split.definition, params, batch_stats)
        model.train()
        return model(images)

    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    with pytest.raises(ValueError, match="random keys"):
        jax.eval_shape(train, split.params, split.batch_stats, images)


class Net(nnx.Module):
    """A network whose loss shows at once what was dropped."""

    def __init__(self, rngs):
        self.norm = BatchNorm(3, dtype=jnp.float32)
        self.dropout, self.fc = Dropout(0.5), Classifier(64, 4, dtype=jnp.float32, rngs=rngs)

    def __call__(self, images):
        images = self.norm(images)
        return self.fc(self.dropout(images.reshape(len(images), -1)[:, :64]))


def test_a_key_decides():
    """The key determines which values are dropped. It does not change the statistics."""
    split, images = functional.split(Net(nnx.Rngs(0))), reference.images(4, 5)
    nothing_dropped, one, same, two = (
        apply_train(*split, images, keys)
        for keys in (None, *(jax.random.split(jax.random.key(seed), 4) for seed in (1, 1, 2)))
    )
    np.testing.assert_array_equal(one[0], same[0])
    assert not np.allclose(one[0], two[0])
    assert not np.allclose(one[0], nothing_dropped[0])
    assert one[1].keys() == nothing_dropped[1].keys() == split.batch_stats.keys()
    for path, value in one[1].items():
        np.testing.assert_array_equal(value, nothing_dropped[1][path])


def losses(seed, num_devices, num_steps=3):
    """Losses of steps that change nothing, on the same images for each device."""
    mesh = parallel.make_mesh(devices=jax.devices()[:num_devices])
    split, optimizer = functional.split(Net(nnx.Rngs(0))), sgd(0.0, 0.0, 0.0)
    step = make_train_step(split.definition, optimizer, mesh, zoo.Preprocessing(), 4, seed=seed)
    rng = np.random.default_rng(0)
    images = np.tile(rng.integers(0, 256, (2, 5, 5, 3), np.uint8), (num_devices, 1, 1, 1))
    labels = np.tile(np.array([1, 2]), num_devices)
    state, found = parallel.replicate(init_state(split, optimizer), mesh), []
    for _ in range(num_steps):
        state, metrics = step(state, *parallel.shard_batch((images, labels), mesh))
        found.append(float(metrics.loss))
    return found


def test_training_drops_by_seed_step_and_device():
    first = losses(seed=0, num_devices=1)
    assert losses(seed=0, num_devices=1) == first
    assert len(set(first)) == 3
    assert not set(losses(seed=1, num_devices=1)) & set(first)
    # Did the second device drop what the first does, the mean over both would be the first's.
    assert not np.isclose(losses(seed=0, num_devices=2), first, rtol=1e-4).any()


def test_whole_channels_are_dropped_and_the_others_scaled():
    options = {"num_mixtures": None, "dtype": jnp.float32, "rngs": nnx.Rngs(0)}
    operator = NodeOperator(64, 64, dropout=0.1, **options)
    split = functional.split(operator)
    x = 10 + jnp.abs(jax.random.normal(jax.random.key(0), (32, 5, 5, 64)))

    def residual(keys):
        """What the bottleneck adds to x; x is large enough for the last ReLU to leave it alone."""

        @jax.jit
        def run(params, batch_stats):
            model = functional.merge(split.definition, params, batch_stats)
            model.train()
            model.dropout.deterministic = keys is None
            model.dropout.keys = keys
            return model(x, x) - x

        return run(split.params, split.batch_stats)

    whole, some = residual(None), residual(jax.random.split(jax.random.key(3), len(x)))
    dropped = np.all(some == 0, axis=(1, 2))
    assert abs(dropped.mean() - 0.1) <= 4 * np.sqrt(0.09 / dropped.size)
    kept = np.broadcast_to(~dropped[:, None, None, :], whole.shape)
    np.testing.assert_allclose(some[kept], whole[kept] / 0.9, atol=1e-4)
