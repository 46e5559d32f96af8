"""What AN attends to: python -m an_jax.attention, its formulas, and its files."""

import base64
import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from flax import nnx

from an_jax import functional
from an_jax.attention import __main__ as command
from an_jax.attention import capture, statistics
from an_jax.attention.thumbnails import make_thumbnails
from an_jax.checkpoint import load_model
from an_jax.data.images.normalization import normalize_images
from an_jax.data.sets.digits import open_digits
from an_jax.data.sources import ImageList
from an_jax.nn import AttentiveNorm
from an_jax.report.attention import read_attention
from tests import pictures
from tests.small_model import CARD, save

AN_CARD = dataclasses.replace(CARD, model="resnet_20_an_bn1", num_classes=10)
BN_CARD = dataclasses.replace(CARD, num_classes=10)
LAYER = "layer1.0.norm1"


@pytest.mark.parametrize(
    ("weights", "number"),
    [
        ([0.3] * 7, 7),
        ([0, 0, 0.2, 0], 1),
        ([0, 0.5, 0.5], 2),
        ([0.9, 0.3], 4 / 3**0.75),  # shares 3/4 and 1/4: 4 exp(-3/4 log 3)
        ([0, 0], 0),
    ],
)
def test_effective_number(weights, number):
    assert statistics.effective_number(np.array(weights)) == pytest.approx(number)


def test_components_that_take_turns_are_all_in_use():
    lambdas = np.tile(np.eye(5), (3, 1))
    assert statistics.effective_number(lambdas.mean(axis=0)) == pytest.approx(5)
    np.testing.assert_allclose(statistics.effective_number(lambdas), 1)


@pytest.mark.parametrize(
    ("lambdas", "labels", "expected"),
    [
        # Sums of squares: 16 between the classes, 4 within, 20 in total.
        ([[1], [3], [5], [7]], [4, 4, 9, 9], (0.8, 1 - (4 / 2) / (20 / 3))),
        ([[1, 2], [3, 2], [5, 2], [7, 2]], [4, 4, 9, 9], (0.8, 0.7)),
        ([[1, 0], [0, 1], [1, 0], [0, 1]], [0, 1, 0, 1], (1, 1)),
        ([[1], [3], [1], [3]], [0, 0, 1, 1], (0, -0.5)),
        ([[0.1], [0.1], [0.1]], [0, 0, 1], (None, None)),  # lambda does not vary
        ([[1], [3]], [0, 0], (None, None)),
        ([[1], [3]], [0, 1], (1, None)),
    ],
)
def test_variance_explained(lambdas, labels, expected):
    found = statistics.variance_explained(np.float32(lambdas), np.array(labels))
    assert found == pytest.approx(expected)


def test_epsilon_squared_is_unbiased():
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 10
    draws = [statistics.variance_explained(rng.random((40, 6)), labels) for _ in range(200)]
    eta_squared, epsilon_squared = np.mean(draws, axis=0)
    assert eta_squared == pytest.approx(9 / 39, abs=0.01)
    assert epsilon_squared == pytest.approx(0, abs=0.01)


def test_affine_spread():
    found = statistics.affine_spread(np.eye(2), np.array([[1, 2], [3, 6]]))
    assert found == pytest.approx((3, 2.5**0.5, 1))  # 1, 2 in the first image, 3, 6 in the second
    assert found.std_over_images**2 + found.std_over_channels**2 == pytest.approx(3.5)
    bn = statistics.affine_spread(np.ones((1, 1)), np.array([[1, 2, 6]]))
    assert bn == pytest.approx((3, 0, np.std([1, 2, 6])))


def test_most_using():
    """The second component is saturated in three images; the first tells them apart."""
    lambdas = np.array([[0.5, 1], [0.2, 1], [0.4, 1], [0.3, 0.1]])
    np.testing.assert_array_equal(statistics.find_top_images(lambdas, 2), [[3, 0], [1, 2]])
    assert statistics.find_top_images(lambdas, 9).shape == (2, 4)


class TwoNorms(nnx.Module):
    """AN with batch statistics and AN with group statistics, of the same input."""

    def __init__(self):
        options = {"dtype": jnp.float32, "rngs": nnx.Rngs(0)}
        self.bn = AttentiveNorm(8, 5, **options)
        self.gn = AttentiveNorm(8, 6, num_groups=4, num_attention_groups=2, **options)

    def __call__(self, x):
        return self.bn(x) + self.gn(x)


def test_mixture_weights_by_hand():
    definition, params, batch_stats = functional.split(TwoNorms())
    rng = np.random.default_rng(0)
    draw = {name: 0.5 + rng.random(array.shape) for name, array in (params | batch_stats).items()}
    params, batch_stats = (
        {n: jnp.float32(draw[n]) for n in part} for part in (params, batch_stats)
    )
    images = rng.normal(0.2, 1, (3, 4, 4, 8))
    with jax.checking_leaks():
        record = jax.jit(functools.partial(capture.mixture_weights, definition))
        found = record(params, batch_stats, jnp.float32(images))

    descriptor = images.mean((1, 2)) / np.sqrt(images.var((1, 2), ddof=1) + 1e-3)
    for name in ("bn", "gn"):
        scores = descriptor @ draw[f"{name}.attention.0.kernel"]
        if name == "bn":
            mean, var = draw["bn.attention.1.mean"], draw["bn.attention.1.var"]
        else:
            groups = scores.reshape(3, 2, 3)
            mean, var = (np.repeat(f(groups, axis=2), 3, axis=1) for f in (np.mean, np.var))
        scores = (scores - mean) / np.sqrt(var + 1e-5)
        scores = scores * draw[f"{name}.attention.1.scale"] + draw[f"{name}.attention.1.bias"]
        expected = np.clip(scores + 3, 0, 6) / 6
        assert expected.std() > 0.05
        np.testing.assert_allclose(found[name], expected, atol=1e-5)
    assert list(found) == ["bn", "gn"]


class InOrder:
    """Reads as a split of tfds does: not with a list of positions."""

    def __init__(self, images):
        self.images = images

    def read(self, positions):
        assert isinstance(positions, range)
        return self.images.read(positions)


@pytest.mark.parametrize("source", ["files", "in_memory", "tfds"])
def test_thumbnails(tmp_path, source):
    images = [pictures.smooth(90, 90, seed) for seed in range(4)]
    encoded = [pictures.encode(image, "PNG") for image in images]
    for i, content in enumerate(encoded):
        (tmp_path / f"{i}.png").write_bytes(content)
    files = ImageList([f"{i}.png" for i in range(4)], np.zeros(4, np.int32), root=str(tmp_path))
    in_memory = dataclasses.replace(files, root="", encoded=encoded)
    sources = {"files": files, "in_memory": in_memory, "tfds": InOrder(in_memory)}
    preprocessing = dataclasses.replace(CARD.preprocessing, image_size=80)
    found = [*make_thumbnails(sources[source], [3, 1], preprocessing)]
    assert len(found) == 2
    for i, thumbnail in zip([3, 1], found, strict=True):
        cropped = pictures.resize_and_center_crop(images[i], 80, 80, "bilinear")
        expected = np.float32(pictures.resize(cropped, 64, 64, "bicubic"))
        assert np.abs(pixels_of(thumbnail) - expected).mean() < 8  # WebP is lossy


def pixels_of(thumbnail):
    kind, content = thumbnail.split(",")
    assert kind == "data:image/webp;base64"
    return np.float32(pictures.decode(base64.b64decode(content)))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Checkpoints of the same network with AN and with BN."""
    path = tmp_path_factory.mktemp("checkpoints")
    save(path / "attentive", AN_CARD)
    save(path / "batch", BN_CARD)
    return path


def run(*arguments):
    return command.main([str(argument) for argument in arguments])


def test_the_command(checkpoints, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("--checkpoint", checkpoints, "--datasets", "digits", "--output_dir", out) == 0
    printed = capsys.readouterr().out
    folder = out / "attention"
    assert {path.name for path in folder.rglob("*.*")} == {
        "digits.json",
        "digits-mixture.png",
        "digits-layers.png",
    }
    analysis, batch = (
        json.loads((folder / name / "digits.json").read_text()) for name in ("attentive", "batch")
    )
    assert read_attention(out) == [analysis, batch]
    names = [layer["name"] for layer in analysis["layers"]]
    assert names[:3] == ["norm1", LAYER, "layer1.0.norm2"]
    assert [layer["name"] for layer in batch["layers"]] == names
    assert batch["images"] == []
    assert analysis["num_images"] == batch["num_images"] == 360

    lambdas, params, pixels = digits_mixture_weights(checkpoints / "attentive")
    layer, other = analysis["layers"][1], batch["layers"][1]
    components = layer["components"]
    np.testing.assert_allclose([c["mean"] for c in components], lambdas.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose([c["std"] for c in components], lambdas.std(axis=0), atol=1e-4)
    scale = lambdas @ np.asarray(params[f"{LAYER}.weight"])
    assert layer["scale"] == pytest.approx(
        {
            "mean": scale.mean(),
            "std_over_images": scale.var(axis=0).mean() ** 0.5,
            "std_over_channels": scale.mean(axis=0).std(),
        },
        abs=1e-4,
    )
    assert (layer["norm"], other["norm"]) == ("AN", "BN")
    assert other["scale"]["std_over_images"] == 0
    assert other["scale"]["mean"] == pytest.approx(1, abs=0.1)

    source = open_digits("test")
    images = {image["position"]: image for image in analysis["images"]}
    for k, component in enumerate(components):
        users = component["images"]
        shares = [(lambdas / lambdas.sum(axis=1, keepdims=True))[u["position"], k] for u in users]
        assert len(users) == 5
        assert shares == pytest.approx(sorted(shares, reverse=True), abs=1e-5)
        for user in users:
            image = images[user["position"]]
            assert user["lambda"] == pytest.approx(lambdas[user["position"], k], abs=1e-4)
            assert image["filename"] == source.filenames[user["position"]]
            assert image["class"] == str(source.labels[user["position"]]) == str(image["label"])
            thumbnail = pixels_of(image["thumbnail"])
            assert np.abs(thumbnail - pixels[user["position"]]).mean() < 8

    assert f"{other['scale']['mean']:.3f} |\n" in printed
    row = next(line for line in printed.splitlines() if line.startswith(f"| {LAYER} "))
    assert [float(cell) for cell in row.strip("| ").split("|")[1:4]] == pytest.approx(
        [10, layer["in_use"], layer["in_use_per_image"]], abs=0.05
    )
    for name in ("mixture", "layers"):
        with PIL.Image.open(folder / f"attentive/digits-{name}.png") as picture:
            assert picture.width > 500


def digits_mixture_weights(checkpoint):
    """The first AN layer's weights of all test digits, the arrays, and the digits by Pillow."""
    decoded = map(pictures.decode, open_digits("test").encoded)
    pixels = [pictures.resize_and_center_crop(image, 16, 16, "bilinear") for image in decoded]
    pixels = np.stack(pixels)
    images = normalize_images(jnp.asarray(pixels), AN_CARD.preprocessing)
    definition, params, batch_stats = functional.split(load_model(checkpoint))
    record = jax.jit(functools.partial(capture.mixture_weights, definition))
    return np.asarray(record(params, batch_stats, images)[LAYER]), params, pixels


def test_class_folders_of_my_own(checkpoints, tmp_path, capsys, monkeypatch):
    """Prints only. Without a model with BN there is no column of one."""
    for i, label in enumerate([3, 3, 7]):
        folder = tmp_path / "mine" / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.png").write_bytes(pictures.encode(pictures.smooth(20, 20, i), "PNG"))
    monkeypatch.chdir(tmp_path)
    before = {*tmp_path.rglob("*")}
    datasets = f"mine={tmp_path / 'mine'}"
    assert run("--checkpoint", checkpoints / "attentive", "--datasets", datasets) == 0
    printed = capsys.readouterr().out
    assert "attentive on mine (3 images)" in printed
    assert "scale of" not in printed
    assert "written" not in printed
    assert {*tmp_path.rglob("*")} == before


@pytest.mark.slow
def test_output_in_a_bucket(checkpoints, bucket):
    out = bucket.path / "out"
    assert run("--checkpoint", checkpoints, "--datasets", "digits", "--output_dir", out) == 0
    assert [analysis["model"] for analysis in read_attention(out)] == ["attentive", "batch"]
    for name in ("mixture", "layers"):
        picture = (out / f"attention/attentive/digits-{name}.png").read_bytes()
        assert picture.startswith(b"\x89PNG")


def test_weights_that_are_not_finite(tmp_path, capsys):
    kernel = np.full((16, 10), np.inf, np.float32)
    save(tmp_path / "broken", AN_CARD, **{f"{LAYER}.attention.0.kernel": kernel})
    assert run("--checkpoint", tmp_path / "broken", "--datasets", "digits") == 1
    assert (
        "broken on digits: the mixture weights of layer1.0.norm1 are NaN" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--datasets", "digits"], "no AN layers in batch (resnet_20_bn): give the --checkpoint"),
        (["--datasets", "imagenet-c"], "takes its images from imagenet-1k and 75 other sets"),
        (["--datasets", "imagenet-a-clean"], "imagenet-a-clean takes its images from imagenet-1k:"),
        (["--datasets", "digits", "--batch_size", "0"], "--batch_size must be at least 1"),
    ],
)
def test_refusals(checkpoints, capsys, arguments, message):
    assert run("--checkpoint", checkpoints / "batch", *arguments) == 1
    assert message in capsys.readouterr().err


def test_an_output_that_cannot_be_written(checkpoints, tmp_path, capsys):
    (tmp_path / "file").touch()
    arguments = ("--checkpoint", checkpoints, "--datasets", "digits", "--batch_size", 8)
    assert run(*arguments, "--output_dir", tmp_path / "file") == 1
    error = capsys.readouterr().err
    assert f"cannot write to {tmp_path}/file/attention/attentive: " in error
    assert "img/s" not in error  # before the model runs


def test_several_processes_are_refused(checkpoints, monkeypatch, capsys):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert run("--checkpoint", checkpoints / "attentive", "--datasets", "digits") == 1
    assert "runs in one process, and this job has 2" in capsys.readouterr().err
