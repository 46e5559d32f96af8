"""Parity with PyTorch: every model against outputs of the original code in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import an_jax
from an_jax import functional, parallel, zoo
from an_jax.training.optimizer import sgd
from an_jax.training.step import init_state, train_step
from an_jax.training.targets import smooth_targets
from convert.aognet_v2 import current_names
from convert.recognise import recognise
from tests import reference

# One of each kind of network and of norm in every run; all of them with the slow tests.
FAST = {
    *("resnet_34_an_bn12", "resnet_50_se_bn123", "resnet_50_an_all", "resnetv1d_50_an"),
    *("aognet_12m_an", "densenet_121_an", "mobilenetv2_an"),
}


def models(fast=FAST, names=reference.MODELS):
    return pytest.mark.parametrize(
        "name", [pytest.param(m, marks=[] if m in fast else pytest.mark.slow) for m in names]
    )


def relative_error(actual, expected):
    """Largest difference over the largest expected magnitude."""
    return float(np.max(np.abs(np.asarray(actual) - expected)) / np.max(np.abs(expected)))


def eval_logits(split, size):
    return jax.jit(functional.apply_eval, static_argnums=0)(*split, reference.images(2, size))


@pytest.fixture(autouse=True)
def compiled_code_is_dropped():
    """The executables of all models together would take 10 GB."""
    yield
    jax.clear_caches()


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


@models(fast=reference.MODELS)
def test_eval_logits_float32_small(name, record_error):
    check_eval_logits_float32(name, 96, record_error)


@models()
def test_eval_logits_float32(name, record_error):
    check_eval_logits_float32(name, 224, record_error)


def check_eval_logits_float32(name, size, record_error):
    logits = eval_logits(reference.load(name), size)
    assert logits.dtype == jnp.float32
    error = relative_error(logits, reference.golden(name)[f"eval_logits_{size}"])
    assert record_error(error) <= 1e-5


@models()
def test_eval_float64(name, float64, record_error):
    split, golden = reference.load(name, jnp.float64), reference.golden(name)
    for size in (96, 224):
        error = relative_error(eval_logits(split, size), golden[f"eval_logits_{size}"])
        assert record_error(error) <= 1e-6
    model = functional.merge(*split)
    model.eval()
    stages = jax.jit(lambda x: model.features(x))(reference.images(2, 96))
    stats = [[stage.mean(), stage.std()] for stage in stages]
    expected = np.stack([golden["stage_mean"], golden["stage_std"]], axis=1)
    assert record_error(relative_error(stats, expected)) <= 1e-6


def load_aognet_v2(name, dtype):
    old = reference.state_dict(name)
    source = {new: old[key] for key, new in current_names(old).items()}
    model = recognise({key: value.shape for key, value in source.items()}).model
    return reference.load(model, dtype, source)


@models(fast={"aognet_v2/aognet-12m-an-imagenet"}, names=reference.AOGNET_V2)
def test_aognet_v2_float32(name, record_error):
    golden = reference.golden(name)
    for size in (96, 224):
        logits = eval_logits(load_aognet_v2(name, jnp.float32), size)
        error = relative_error(logits, golden[f"eval_logits_{size}"])
        assert record_error(error) <= 1e-5


@models(
    fast={"aognet_v2/mobilenetv2-an-imagenet", "aognet_v2/resnet-50-an-imagenet-200e-lbsmth-mixup"},
    names=reference.AOGNET_V2,
)
def test_aognet_v2_float64(name, float64, record_error):
    golden = reference.golden(name)
    for size in (96, 224):
        logits = eval_logits(load_aognet_v2(name, jnp.float64), size)
        error = relative_error(logits, golden[f"eval_logits_{size}"])
        assert record_error(error) <= 1e-6


def loss_and_logits(definition, batch_stats, images, labels, params):
    logits, new_stats = functional.apply_train(definition, params, batch_stats, images, None)
    log_probs = jax.nn.log_softmax(logits)
    return -jnp.mean(log_probs[jnp.arange(len(labels)), labels]), (logits, new_stats)


@models()
def test_train_float64(name, float64, record_error):
    (definition, params, batch_stats), golden = (
        reference.load(name, jnp.float64),
        reference.golden(name),
    )
    loss_fn = functools.partial(
        loss_and_logits, definition, batch_stats, reference.images(4, 96), reference.labels(4)
    )
    gradient = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
    (loss, (logits, stats)), gradients = gradient(params)
    assert abs(loss - golden["train_loss"]) <= 1e-6 * golden["train_loss"]
    assert record_error(relative_error(logits, golden["train_logits"])) <= 1e-6

    norms = {path: jnp.linalg.norm(g.ravel()) for path, g in gradients.items()}
    in_order = [norms[path] for path in reference.param_paths(name)]
    assert relative_error(in_order, golden["grad_norms"]) <= 1e-5
    total = np.linalg.norm(in_order)
    assert record_error(abs(total / golden["grad_norm"] - 1)) <= 1e-5

    for kind, suffix in (("running_mean", ".mean"), ("running_var", ".var")):
        values = np.concatenate([s for path, s in stats.items() if path.endswith(suffix)])
        l2 = golden[f"{kind}_l2"]
        assert abs(np.linalg.norm(values) - l2) <= 1e-6 * l2
        assert abs(values.sum() - golden[f"{kind}_sum"]) <= 1e-6 * abs(golden[f"{kind}_sum"])


@models(fast={"resnet_34_an_bn12"})
def test_sgd_float64(name, float64, record_error):
    split, golden = reference.load(name, jnp.float64), reference.golden(name)
    mesh = parallel.make_mesh(devices=jax.devices()[:1])

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=P(), out_specs=P())
    def step(state, learning_rate, images, labels):
        optimizer = sgd(learning_rate, momentum=0.9, weight_decay=1e-4)
        targets = smooth_targets(labels, 1000, smoothing=0.0)
        return train_step(split.definition, optimizer, state, images, targets, None)

    step = jax.jit(step)
    images, labels = reference.images(8, int(golden["sgd_size"])), reference.labels(8)
    for run, learning_rate in (("sgd", 0.05), ("sgd_small", golden["sgd_small_lr"])):
        state = init_state(split, sgd(0.0, momentum=0.9, weight_decay=1e-4))
        losses = []
        for _ in range(5):
            state, metrics = step(state, learning_rate, images, labels)
            losses.append(float(metrics.loss))
        expected, sensitivity = golden[f"{run}_losses"], golden[f"{run}_sens"]
        # Large steps are chaotic: only those are compared that a change of 1e-14 leaves alone.
        tame = sensitivity < 1e-5
        tolerance = 1e-6 * np.maximum(1, expected) + 1000 * sensitivity
        assert tame[:2].all()
        assert (np.abs(losses - expected) <= tolerance)[tame].all()
        record_error(relative_error(np.array(losses)[tame], expected[tame]))


def test_covers_every_model():
    assert an_jax.list_models() == reference.MODELS


@pytest.mark.parametrize("name", reference.MODELS)
def test_parameter_count(name):
    split = functional.split(zoo.abstract_model(name))
    assert functional.count(split.params) == reference.manifest(name)["num_params"]
