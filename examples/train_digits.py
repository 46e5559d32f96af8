"""Trains a ResNet-20 with Attentive Normalization on scikit-learn's digits, without train.py.

python examples/train_digits.py

The model is split into a static definition and two dictionaries of arrays. Everything else is plain
JAX and optax.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

from an_jax import create_model, functional

NUM_EPOCHS, BATCH_SIZE = 4, 64

# 1797 images of 8 x 8 pixels; every eighth one is for testing.
digits = load_digits()
images = digits.images.repeat(2, axis=1).repeat(2, axis=2)  # the model halves 16 pixels twice
images = np.stack([(images - images.mean()) / images.std()] * 3, axis=-1).astype(np.float32)
is_test = np.arange(len(images)) % 8 == 0
train_images, train_labels = images[~is_test], digits.target[~is_test]

definition, params, batch_stats = functional.split(create_model("resnet_20_an_bn1", num_classes=10))
num_steps = NUM_EPOCHS * (len(train_images) // BATCH_SIZE)
optimizer = optax.sgd(optax.cosine_decay_schedule(0.1, num_steps), momentum=0.9, nesterov=True)
opt_state = optimizer.init(params)


@jax.jit
def train_step(params, batch_stats, opt_state, images, labels):
    """Returns the updated arrays and the loss."""

    def loss_fn(params):
        # None is for the keys of dropout, which ResNets do not have.
        logits, stats = functional.apply_train(definition, params, batch_stats, images, None)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), stats

    (loss, batch_stats), gradients = jax.value_and_grad(loss_fn, has_aux=True)(params)
    updates, opt_state = optimizer.update(gradients, opt_state, params)
    return optax.apply_updates(params, updates), batch_stats, opt_state, loss


@jax.jit
def predict(params, batch_stats, images):
    """Returns the most probable classes."""
    return functional.apply_eval(definition, params, batch_stats, images).argmax(axis=-1)


rng = np.random.default_rng(0)
for epoch in range(NUM_EPOCHS):
    order = rng.permutation(len(train_images))
    losses = []
    for rows in np.split(order, range(BATCH_SIZE, len(order), BATCH_SIZE))[:-1]:
        params, batch_stats, opt_state, loss = train_step(
            params, batch_stats, opt_state, train_images[rows], jnp.asarray(train_labels[rows])
        )
        losses.append(loss)
    predicted = predict(params, batch_stats, images[is_test])
    accuracy = np.mean(predicted == digits.target[is_test])
    print(f"epoch {epoch + 1}: loss {np.mean(losses):.3f}, accuracy {100 * accuracy:.1f} %")
