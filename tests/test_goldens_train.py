"""Training-mode outputs and gradients against those of the original PyTorch code, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from an_jax import functional
from tests import reference
from tests.goldens import models, relative_error

pytestmark = pytest.mark.usefixtures("clear_caches", "float64")


def apply_train(params, definition, batch_stats):
    """Returns the loss, and (logits, new running statistics)."""
    images, labels = reference.images(4, 96), reference.labels(4)
    logits, stats = functional.apply_train(definition, params, batch_stats, images, None)
    log_probs = jax.nn.log_softmax(logits)
    return -jnp.mean(log_probs[jnp.arange(len(labels)), labels]), (logits, stats)


def check_outputs(golden, loss, logits, stats, record_error):
    assert abs(loss - golden["train_loss"]) <= 1e-6 * golden["train_loss"]
    error = relative_error(logits, golden["train_logits"])
    assert record_error(error, "train logits") <= 1e-6
    for kind, suffix in (("running_mean", ".mean"), ("running_var", ".var")):
        values = np.concatenate([s for path, s in stats.items() if path.endswith(suffix)])
        l2, total = golden[f"{kind}_l2"], golden[f"{kind}_sum"]
        assert abs(np.linalg.norm(values) - l2) <= 1e-6 * l2
        assert abs(values.sum() - total) <= 1e-6 * abs(total)


def test_outputs(record_error):
    """Gradients take longest to compile: those of most networks are slow tests."""
    name = "mobilenetv2_an"
    split = reference.load(name, jnp.float64)
    loss, (logits, stats) = jax.jit(apply_train, static_argnums=1)(
        split.params, split.definition, split.batch_stats
    )
    check_outputs(reference.golden(name), loss, logits, stats, record_error)


@models(fast={"resnet_34_an_bn12"})
def test_outputs_and_gradients(name, record_error):
    split, golden = reference.load(name, jnp.float64), reference.golden(name)
    value_and_grad = jax.jit(jax.value_and_grad(apply_train, has_aux=True), static_argnums=1)
    (loss, (logits, stats)), gradients = value_and_grad(
        split.params, split.definition, split.batch_stats
    )
    check_outputs(golden, loss, logits, stats, record_error)
    norms = {path: np.linalg.norm(gradient) for path, gradient in gradients.items()}
    in_order = [norms[path] for path in reference.param_paths(name)]
    assert relative_error(in_order, golden["grad_norms"]) <= 1e-5
    total = np.linalg.norm(in_order)
    assert record_error(abs(total / golden["grad_norm"] - 1), "gradient norm") <= 1e-5
