"""Models by name, and checkpoints: their outputs, and errors for damaged ones."""

import dataclasses
import fnmatch
import functools
import gc
import json
import os
import re
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import an_jax
from an_jax import checkpoint, functional, zoo
from an_jax.checkpoint import ModelCard, save_checkpoint
from an_jax.errors import InputError
from tests import reference
from tests.goldens import models, relative_error
from tests.processes import ROOT

NAME = "resnet_20_an_bn1"
CARD = ModelCard(NAME, 10, zoo.get_architecture(NAME).preprocessing, {"file": "x.pth"})
apply_eval = jax.jit(functional.apply_eval, static_argnums=0)
apply_train = jax.jit(functional.apply_train, static_argnums=0)


@functools.cache
def random_split(dtype=jnp.float32):
    """The small model with random weights; as initialized, its blocks would be the identity."""
    split = functional.split(zoo.abstract_model(NAME, num_classes=10, dtype=dtype))
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        values = rng.standard_normal(leaf.shape, np.float32)
        if path.endswith("kernel"):
            return values * np.sqrt(2 / np.prod(leaf.shape[:-1]))
        return 0.1 * values + path.endswith((".scale", ".weight", ".var"))

    params, batch_stats = (
        {path: jnp.asarray(draw(path, leaf), leaf.dtype) for path, leaf in arrays.items()}
        for arrays in (split.params, split.batch_stats)
    )
    return functional.Split(split.definition, params, batch_stats)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("zoo") / "saved"
    save_checkpoint(path, CARD, *random_split()[1:])
    return path


@pytest.fixture
def damaged(tmp_path):
    """A checkpoint for a test to damage."""
    path = tmp_path / "checkpoint"
    save_checkpoint(path, CARD, *random_split()[1:])
    return path


@pytest.fixture
def noise(monkeypatch):
    """Errors that are printed, not raised, such as those of coroutines that are not awaited."""
    messages = []
    monkeypatch.setattr(sys, "unraisablehook", lambda error: messages.append(str(error.exc_value)))
    yield messages
    settle()


def settle():
    """Waits for orbax's threads, and collects their objects."""
    gc.collect()
    time.sleep(0.2)
    gc.collect()


def equal(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[path], b[path]) for path in a)


def test_list_models():
    names = an_jax.list_models()
    assert names == sorted(names)
    assert len(names) == len(set(names)) == 29


@pytest.mark.parametrize(
    "name", [n for n in zoo.ARCHITECTURES | zoo.OTHER_ARCHITECTURES if re.search(r"_bn\d", n)]
)
def test_slots_are_the_digits_of_the_name(name):
    kind, digits = re.fullmatch(r"resnet_\d+_(an|se)_bn(\d+)", name).groups()
    slots = {f"norm{digit}" for digit in digits}
    arguments = zoo.get_architecture(name).arguments
    assert set(arguments.get("attentive", ())) == (slots if kind == "an" else set())
    assert set(arguments.get("squeeze_excite", ())) == (slots if kind == "se" else set())


@pytest.mark.parametrize("name", ["resnet_50_an_bn", "ResNet_50_an_bn2"])
def test_unknown_name(name):
    with pytest.raises(InputError, match=f"unknown model '{name}'.*resnet_50_an_bn2"):
        an_jax.create_model(name)


def test_create_model():
    model = an_jax.create_model(NAME, num_classes=10)
    assert not np.array_equal(model.layer1[0].conv1.kernel, model.layer1[0].conv2.kernel)
    split, images = functional.split(model), reference.images(4, 16)
    in_training, after = apply_train(*split, images, None)
    for logits in (in_training, apply_eval(*split, images)):
        assert logits.shape == (4, 10)
        assert logits.dtype == jnp.float32
    assert not any(np.array_equal(after[path], old) for path, old in split.batch_stats.items())


def test_backbone():
    model = an_jax.create_model(NAME, num_classes=0, in_features=1)
    definition, params, batch_stats = functional.split(model)
    assert not any(path.startswith("fc") for path in params)

    @jax.jit
    def run(images):
        apply = functools.partial(functional.apply_train, definition, params, batch_stats)
        maps, after = apply(images, None, method="features")
        return maps, apply(images, None)[0], after

    images = reference.images(4, 16)[..., :1]
    maps, pooled, after = run(images)
    assert [m.shape[3] for m in maps] == [info.channels for info in model.feature_info]
    np.testing.assert_allclose(pooled, maps[-1].mean(axis=(1, 2)), rtol=1e-5)
    assert not any(np.array_equal(after[path], old) for path, old in batch_stats.items())
    in_eval = functools.partial(functional.apply_eval, definition, method="features")
    shapes = jax.eval_shape(in_eval, params, batch_stats, images)
    assert [m.shape for m in shapes] == [m.shape for m in maps]


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_bfloat16(mode, record_error):
    """The random walk of 70 roundings of 2**-9 / sqrt(3) ends near 1 %; the limit is 3 %."""

    def apply(split):
        if mode == "eval":
            return apply_eval(*split, reference.images(4, 16))
        return apply_train(*split, reference.images(4, 16), None)[0]

    half = random_split(jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(half[1:])} == {jnp.dtype(jnp.float32)}
    logits, expected = apply(half), apply(random_split())
    assert logits.dtype == jnp.float32
    assert 0 < record_error(relative_error(logits, expected)) <= 0.03


def documented_maps(name):
    """The strides and channels in the table of docs/backbones.md."""
    for line in (ROOT / "docs/backbones.md").read_text().splitlines():
        patterns, *numbers = (cell.strip() for cell in line.strip("| ").split("|"))
        if any(fnmatch.fnmatch(name, pattern) for pattern in patterns.split(", ")):
            return [[int(n) for n in cell.split(",")] for cell in numbers]
    raise AssertionError(f"{name} is not in the table")


@models(
    fast={"resnet_50_se_bn123", "resnetv1d_50_an", "mobilenetv2_an"}
    | {"densenet_121_an", "aognet_12m_an"}
)
def test_dtypes_and_feature_maps(name):
    """Compute in bfloat16; parameters, statistics and logits in float32."""
    split = reference.abstract_split(name, jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(split[1:])} == {jnp.dtype(jnp.float32)}

    models = []

    def run(params, batch_stats, images):
        model = functional.merge(split.definition, params, batch_stats)
        model.eval()
        models.append(model)
        return model.features(images), model(images)

    images = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    maps, logits = jax.eval_shape(run, split.params, split.batch_stats, images)
    assert {output.dtype for output in maps} == {jnp.dtype(jnp.bfloat16)}
    assert (logits.shape, logits.dtype) == ((2, 1000), jnp.float32)
    strides, channels = zip(*models[0].feature_info, strict=True)
    sizes = [64 // stride for stride in strides]
    assert [m.shape for m in maps] == [(2, s, s, c) for s, c in zip(sizes, channels, strict=True)]
    assert [list(strides), list(channels)] == documented_maps(name)


@pytest.mark.parametrize(
    ("name", "smallest"), [("aognet_12m_bn", 31), ("densenet_121_bn", 29), ("resnetv1d_50_bn", 3)]
)
def test_smallest_image(name, smallest):
    def logits(size):
        image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
        return jax.eval_shape(apply, split.params, split.batch_stats, image)

    split = reference.abstract_split(name)
    apply = functools.partial(functional.apply_eval, split.definition)
    assert logits(smallest).shape == (1, 1000)
    with pytest.raises(InputError, match="are too small: use larger images"):
        logits(smallest - 1)


def test_maps_of_one_pixel():
    logits = apply_eval(*random_split(), reference.images(2, 4))
    assert np.isfinite(logits).all()


def test_load_model(saved):
    model, images = an_jax.load_model(saved), reference.images(4, 16)
    _, params, batch_stats = functional.split(model)
    assert equal(params | batch_stats, random_split().params | random_split().batch_stats)
    logits = jax.jit(lambda images: model(images))(images)
    assert relative_error(logits, apply_eval(*random_split(), images)) <= 1e-6


def test_load_model_without_its_classifier(saved):
    model = an_jax.load_model(saved, with_classifier=False)
    expected = {k: v for k, v in random_split().params.items() if not k.startswith("fc.")}
    assert equal(functional.split(model).params, expected)
    images = jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.float32)
    assert jax.eval_shape(lambda images: model(images), images).shape == (2, 64)


def test_card_reads_back(saved):
    assert ModelCard.read(saved) == CARD


def test_load_model_bfloat16(saved):
    model = an_jax.load_model(saved, dtype=jnp.bfloat16)
    assert model.layer1[0].conv1.dtype == jnp.bfloat16
    assert equal(functional.split(model).params, random_split().params)


def test_no_checkpoint(tmp_path):
    with pytest.raises(InputError, match="there is no such directory"):
        an_jax.load_model(tmp_path / "missing")
    with pytest.raises(InputError, match=r"it has no model\.json"):
        an_jax.load_model(tmp_path)


FIELDS = dataclasses.asdict(CARD)


@pytest.mark.parametrize(
    "card",
    [
        b"",
        b'{"model": "resnet',
        b"[]",
        b"null",
        b"\x89PNG\r\n",
        json.dumps({**FIELDS, "model": "resnet_20"}),
        json.dumps({**FIELDS, "model": 20}),
        json.dumps({**FIELDS, "epoch": 3}),
        json.dumps({**FIELDS, "preprocessing": {"image_side": 16}}),
        json.dumps({k: v for k, v in FIELDS.items() if k != "num_classes"}),
        json.dumps({**FIELDS, "num_classes": "ten"}),
        json.dumps({**FIELDS, "source": None}),
    ],
)
def test_damaged_card(card, tmp_path):
    (tmp_path / "model.json").write_bytes(card if isinstance(card, bytes) else card.encode())
    with pytest.raises(InputError, match=r"model\.json is damaged or of another version"):
        ModelCard.read(tmp_path)


def weights(path):
    return [p for p in sorted((path / "weights").rglob("*")) if p.is_file()]


def delete_all(path):
    for file in weights(path):
        file.unlink()


def delete_largest(path):
    max(weights(path), key=lambda file: file.stat().st_size).unlink()


def truncate_largest(path):
    largest = max(weights(path), key=lambda file: file.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)


def change_largest(path):
    """Orbax has no checksums: a changed byte would be loaded."""
    largest = max(weights(path), key=lambda file: file.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)


def other_classes(path):
    dataclasses.replace(CARD, num_classes=7).write(path)


def other_model(path):
    dataclasses.replace(CARD, model="resnet_20_bn").write(path)


@pytest.mark.parametrize(
    "spoil",
    [
        change_largest,
        pytest.param(delete_all, marks=pytest.mark.slow),
        pytest.param(delete_largest, marks=pytest.mark.slow),
        pytest.param(truncate_largest, marks=pytest.mark.slow),
    ],
)
def test_damaged_weights(spoil, damaged, noise):
    spoil(damaged)
    with pytest.raises(InputError, match="files have changed since they were written"):
        an_jax.load_model(damaged)
    settle()
    assert not noise


@pytest.mark.parametrize("spoil", [other_classes, other_model])
def test_weights_of_another_model(spoil, damaged):
    spoil(damaged)
    with pytest.raises(InputError, match=r"checkpoint/weights cannot be read: .* do not fit"):
        an_jax.load_model(damaged)


def test_wrong_classes_without_noise(damaged, noise, caplog):
    """A command prints one message, and no errors of orbax's threads."""
    other_classes(damaged)
    for _ in range(5):
        with pytest.raises(InputError):
            an_jax.load_model(damaged)
    settle()
    assert not noise + caplog.messages


@pytest.mark.parametrize(
    ("error", "raised"),
    [(OSError("disk full"), InputError), (KeyboardInterrupt("disk full"), KeyboardInterrupt)],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_save_that_fails(error, raised, overwrite, tmp_path, monkeypatch):
    destination = tmp_path / "destination"
    if overwrite:
        (destination / "weights").mkdir(parents=True)
        CARD.write(destination)

    def write(self, path):
        raise error

    monkeypatch.setattr(ModelCard, "write", write)
    with pytest.raises(raised, match="disk full"):
        save_checkpoint(destination, CARD, *random_split()[1:], overwrite=overwrite)
    assert list(tmp_path.iterdir()) == [destination] * overwrite
    assert checkpoint.is_checkpoint(destination) == overwrite


def test_save_that_reads_back_differently(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint.np, "array_equal", lambda a, b: False)
    with pytest.raises(InputError, match="reads back differently"):
        save_checkpoint(tmp_path / "destination", CARD, *random_split()[1:])
    assert not list(tmp_path.iterdir())


def test_imports_and_tree_mode():
    program = f"""
import sys, jax, an_jax
from an_jax import functional

def logits(images):
    model = an_jax.create_model({NAME!r}, num_classes=10)
    return model(images), functional.apply_train(*functional.split(model), images, None)[0]

shapes = jax.eval_shape(logits, jax.numpy.ones((2, 8, 8, 3)))
assert [shape.shape for shape in shapes] == [(2, 10)] * 2
print(sorted({{"tensorflow", "torch", "orbax"}} & sys.modules.keys()))
"""
    environment = {**os.environ, "NNX_GRAPH_MODE": "false", "NNX_GRAPH_UPDATES": "false"}
    run = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert (run.returncode, run.stdout) == (0, "[]\n"), run.stderr
