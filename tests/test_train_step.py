"""The training step on several devices against simpler computations of the same."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from an_jax import create_model, functional, parallel, zoo
from an_jax.data.images.normalization import normalize_images
from an_jax.nn import AttentiveNorm, BatchNorm, Classifier, Conv, Dropout
from an_jax.training import optimizer
from an_jax.training.norm_groups import make_norm_groups
from an_jax.training.step import init_state, make_train_step
from configs import digits

SGD = optimizer.sgd(0.1, 0.9, 1e-4)


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def batch():
    """48 images that differ in mean and variance, and labels."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(48, 16, 16, 3)) * rng.uniform(10, 40, (48, 1, 1, 1))
    images += rng.uniform(80, 160, size=(48, 1, 1, 3))
    return np.clip(images, 0, 255).astype(np.uint8), rng.integers(0, 10, 48, np.int32)


def train_on(num_devices, norm_batch_size, split, num_steps=1, optimizer=SGD, **options):
    """The state after some steps on the batch in float64, and the metrics."""
    images, labels = batch()
    groups = make_norm_groups(len(images), norm_batch_size, num_devices)
    mesh = parallel.make_mesh(groups.num_devices, jax.devices()[:num_devices])
    step = make_train_step(
        split.definition,
        optimizer,
        mesh,
        zoo.Preprocessing(),
        10,
        num_micro_batches=groups.num_micro_batches,
        **options,
    )
    rows = groups.rows(len(images))
    arrays = parallel.shard_batch((images[rows], labels[rows]), mesh)
    has_ema = "ema_decay" in options
    state, found = parallel.replicate(init_state(split, optimizer, has_ema=has_ema), mesh), []
    for _ in range(num_steps):
        state, metrics = step(state, *arrays)
        found.append(jax.device_get(metrics))
    return state, found


def norm(*trees):
    """The L2 norm of all values together."""
    return np.sqrt(sum(np.sum(np.square(array)) for array in jax.tree.leaves(trees)))


def replicas(split, num_parts):
    """A step on parts of the batch, computed one after the other, as PyTorch's replicas do."""

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def replica(params, images, labels):
        images = normalize_images(images, zoo.Preprocessing())
        logits, stats = functional.apply_train(
            split.definition, params, split.batch_stats, images, None
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), (stats, losses.mean())

    parts = [
        replica(split.params, *part)
        for part in zip(*(np.split(a, num_parts) for a in batch()), strict=True)
    ]
    gradients, (stats, loss) = jax.tree.map(lambda *leaves: sum(leaves) / num_parts, *parts)
    updates, _ = SGD.update(gradients, SGD.init(split.params), split.params)
    return optax.apply_updates(split.params, updates), stats, (loss, norm(gradients), norm(updates))


class SmallNet(nnx.Module):
    """A convolution with Attentive Normalization, dropout and a classifier, in float64."""

    def __init__(self, dropout=0.0):
        options = {"dtype": jnp.float64, "rngs": nnx.Rngs(0)}
        self.conv = Conv(3, 8, 3, padding=1, **options)
        self.norm = AttentiveNorm(8, 5, **options)
        self.dropout = Dropout(dropout)
        self.fc = Classifier(8, 10, **options)

    def __call__(self, images):
        maps = self.dropout(self.norm(self.conv(images)))
        return self.fc(nnx.relu(maps).mean(axis=(1, 2)))


def assert_equal(actual, expected):
    assert actual.keys() == expected.keys()
    for path, value in expected.items():
        np.testing.assert_allclose(actual[path], value, rtol=1e-9, atol=1e-12, err_msg=path)


def assert_groups_are_replicas(split, num_devices, norm_batch_size):
    """Groups of images, however they lie on the devices, equal replicas with averaged gradients."""
    after, (metrics,) = train_on(num_devices, norm_batch_size, split)
    params, stats, expected = replicas(split, 48 // norm_batch_size)
    assert_equal(after.params, params)
    assert_equal(after.batch_stats, stats)
    found = metrics.loss, metrics.gradient_norm, metrics.update_norm
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize("norm_batch_size", [6, 48])
def test_statistics_of_each_group_of_images(float64, norm_batch_size):
    assert_groups_are_replicas(functional.split(SmallNet()), 8, norm_batch_size)


@pytest.mark.slow
@pytest.mark.parametrize("num_devices", [1, 2, 8])
def test_statistics_of_each_group_of_images_in_a_resnet(float64, num_devices):
    model = create_model("resnet_20_an_bn1", num_classes=10, dtype=jnp.float64, rngs=nnx.Rngs(0))
    assert_groups_are_replicas(functional.split(model), num_devices, 16)


# Devices -> how they compute groups of 16 of 48 images: (devices in a group, micro-batches).
LAYOUTS = {6: (2, 1), 8: (8, 3)}  # beside 1: (1, 3)

RECIPE = {"num_steps": 3, "label_smoothing": 0.1, "mixup_alpha": 0.2}


def test_the_number_of_devices_does_not_matter(float64):
    """Metrics, parameters and statistics with mixup, label smoothing and dropout."""
    split = functional.split(SmallNet(dropout=0.3))
    expected, metrics = train_on(1, 16, split, **RECIPE)
    for num_devices, layout in LAYOUTS.items():
        assert make_norm_groups(48, 16, num_devices)[1:] == layout
        state, found = train_on(num_devices, 16, split, **RECIPE)
        np.testing.assert_allclose(found, metrics, rtol=1e-9)
        assert_equal(state.params, expected.params)
        assert_equal(state.batch_stats, expected.batch_stats)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet_20_an_bn1", "mobilenetv2_an"])
def test_the_number_of_devices_does_not_matter_to_a_network(float64, name):
    """Two losses are the same. Later ones differ by no more than after a change of the weights by
    1e-14 of themselves, which statistics over few values amplify."""
    model = create_model(name, num_classes=10, dtype=jnp.float64, rngs=nnx.Rngs(0))
    split, rng = functional.split(model), np.random.default_rng(0)
    changed = {
        path: value * (1 + 1e-14 * rng.choice([-1, 1], value.shape))
        for path, value in split.params.items()
    }
    one_device = train_on(1, 16, split, **RECIPE)
    perturbed = train_on(1, 16, split._replace(params=changed), **RECIPE)
    two_devices = train_on(2, 16, split, **RECIPE)
    losses, moved, found = (
        [metrics.loss for metrics in run[1]] for run in (one_device, perturbed, two_devices)
    )
    np.testing.assert_allclose(found[:2], losses[:2], rtol=1e-9)
    assert abs(found[2] - losses[2]) <= abs(moved[2] - losses[2])


def test_frozen_arrays(float64):
    """They keep their bits on three groups, whose average may be rounded. A frozen norm normalizes
    with its running statistics."""
    definition, params, stats = functional.split(SmallNet())
    rng = np.random.default_rng(0)
    stats = {name: rng.uniform(0.5, 1.5, value.shape) for name, value in stats.items()}
    split = functional.Split(definition, params, stats)
    frozen = optimizer.find_frozen("norm", split)
    partition = optimizer.make_optimizer(digits.get_config("an"), 0.1, frozen)
    after, metrics = train_on(3, 16, split, 2, partition, frozen=frozen, ema_decay=0.3)
    averages = after.ema["params"] | after.ema["batch_stats"]
    for name, value in (params | stats).items():
        for found in (after.params | after.batch_stats, averages):
            assert np.array_equal(found[name], value) == name.startswith("norm."), name
    images, labels = batch()
    logits = functional.apply_eval(
        definition, params, stats, normalize_images(images, zoo.Preprocessing())
    )
    expected = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    np.testing.assert_allclose(metrics[0].loss, expected, rtol=1e-6)


def test_norms_with_clipping_and_frozen_parameters(float64):
    """The norm of the gradients is that before clipping. Frozen parameters do not count."""
    split, config, runs = functional.split(SmallNet()), digits.get_config("an"), []
    frozen = optimizer.find_frozen("norm", split)
    for clip_norm in (0.0, 0.01):
        config.update({"momentum": 0.0, "weight_decay": 0.0, "clip_norm": clip_norm})
        updates = optimizer.make_optimizer(config, 1.0, frozen)
        runs.append(train_on(1, 48, split, optimizer=updates, frozen=frozen))
    (after, (whole,)), (_, (clipped,)) = runs
    change = norm(jax.tree.map(jnp.subtract, after.params, split.params))
    np.testing.assert_allclose([whole.gradient_norm, whole.update_norm], change, rtol=1e-9)
    np.testing.assert_allclose(clipped.gradient_norm, whole.gradient_norm, rtol=1e-9)
    np.testing.assert_allclose(clipped.update_norm, 0.01, rtol=1e-9)


def test_moving_averages(float64):
    """They follow parameters and statistics from the initial weights on."""
    split = functional.split(SmallNet())
    expected = split.params | split.batch_stats
    for num_steps in (1, 2):
        state, _ = train_on(1, 48, split, num_steps, ema_decay=0.9)
        new = state.params | state.batch_stats
        expected = {name: 0.9 * old + 0.1 * new[name] for name, old in expected.items()}
    assert_equal(state.ema["params"] | state.ema["batch_stats"], expected)


class Net(nnx.Module):
    """Small, with statistics to keep."""

    def __init__(self, dtype):
        self.norm = BatchNorm(3, dtype=dtype)
        self.fc = Classifier(12, 10, dtype=dtype, rngs=nnx.Rngs(0))

    def __call__(self, images):
        return self.fc(self.norm(images)[:, ::8, ::8].reshape(len(images), 12))


def run_steps(num_steps=3, dtype=jnp.float32, optimizer=SGD, **options):
    """Runs the compiled step on two devices; returns the losses, the last state and the step."""
    mesh = parallel.make_mesh(devices=jax.devices()[:2])
    split = functional.split(Net(dtype))
    step = make_train_step(split.definition, optimizer, mesh, zoo.Preprocessing(), 10, **options)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, 16, 16, 3), np.uint8)
    arrays = parallel.shard_batch((images, np.arange(8, dtype=np.int32)), mesh)
    state, losses = parallel.replicate(init_state(split, optimizer), mesh), []
    for _ in range(num_steps):
        donated = state
        state, metrics = step(state, *arrays)
        losses.append(float(metrics.loss))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(donated))
    return losses, state, step


def test_the_step_compiles_once_and_returns_the_state():
    _, state, step = run_steps()
    assert step._cache_size() == 1
    assert int(state.step) == 3


def test_a_non_finite_update_makes_the_loss_nan():
    """A finite loss with an infinite update is reported as NaN, so that the update is not saved."""
    rates = optimizer.sgd(lambda count: jnp.where(count == 1, jnp.inf, 0.1), 0.9, 0.0)
    losses, _, _ = run_steps(num_steps=2, optimizer=rates)
    assert np.isfinite(losses).tolist() == [True, False]


def test_bfloat16_keeps_its_state_in_float32():
    losses, state, _ = run_steps(dtype=jnp.bfloat16)
    expected, _, _ = run_steps()
    arrays = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim]
    assert {leaf.dtype for leaf in arrays} == {jnp.dtype(jnp.float32)}
    np.testing.assert_allclose(losses[0], expected[0], rtol=2e-2)
    assert losses[0] != expected[0]


def test_devices_exchange_float32():
    """Gradients are averaged over devices in float32; bfloat16 would lose precision."""
    split = functional.split(zoo.abstract_model("resnet_20_an_bn1", dtype=jnp.bfloat16))
    step = make_train_step(
        split.definition, SGD, parallel.make_mesh(2), zoo.Preprocessing(), 1000, mixup_alpha=0.2
    )
    state = jax.eval_shape(lambda: init_state(split, SGD))
    images = jax.ShapeDtypeStruct((16, 32, 32, 3), jnp.uint8)
    program = str(jax.make_jaxpr(step)(state, images, jax.ShapeDtypeStruct((16,), jnp.int32)))
    sums = [line for line in program.splitlines() if re.search(r"= psum\w*\[", line)]
    assert len(sums) > 20
    assert not any("bf16" in line for line in sums)


def test_mixup_and_smoothing_change_the_loss_by_seed():
    plain, smoothed, mixed, other, again = (
        run_steps(1, **options)[0][0]
        for options in (
            {},
            {"label_smoothing": 0.1},
            {"mixup_alpha": 0.2},
            {"mixup_alpha": 0.2, "seed": 1},
            {"mixup_alpha": 0.2},
        )
    )
    assert mixed == again
    assert len({plain, smoothed, mixed, other}) == 4
