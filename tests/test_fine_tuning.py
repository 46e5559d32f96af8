"""Class folders of the user: fine-tuning a checkpoint of other classes, and from scratch."""

import os
import unicodedata

import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from PIL import Image

from an_jax import functional, load_model, zoo
from an_jax.checkpoint import ModelCard
from an_jax.data.sets import digits
from an_jax.data.sets.train_sets import open_train_set
from an_jax.errors import InputError
from an_jax.training import curves, loop
from an_jax.training.build import initial_weights
from tests.digits_runs import TUNED, config, read_last
from tests.pictures import JPEG, decode, encode, noise
from tests.processes import ROOT, finish, start
from tests.small_model import random_split, save, softmax_of

PNG = encode(np.zeros((8, 8, 3), np.uint8), "PNG")
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Digits as JPEGs of 64 px, sorted into folders by their English names."""
    root = tmp_path_factory.mktemp("own")
    for split, name in (("train", "train"), ("test", "val")):
        source = digits.open_digits(split)
        for i in range(len(source)):
            path = root / name / NAMES[source.labels[i]] / f"{i:04d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(decode(source.encoded[i]).repeat(2, 0).repeat(2, 1)))
    return root


def test_classes_are_the_sorted_folder_names(folder):
    train_set = open_train_set("folder", f"{folder}/")
    assert train_set.classes == sorted(NAMES)
    assert train_set.num_classes == 10
    for source in (train_set.source, train_set.val_source):
        for name, label in zip(source.filenames, source.labels, strict=True):
            assert name.split("/")[0] == train_set.classes[label]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (["train/a/x.jpg", "train/b/x.jpg"], "no val/ in .*: expected DATA/train/CLASS/IMAGE"),
        (["val/a/x.jpg"], "no train/ in"),
        (["train/a/x.jpg", "val/a/x.jpg"], r"has 1 class folder\(s\); training needs at least 2"),
        (["train/a/x.jpg", "train/b/x.jpg", "val/c/x.jpg"], "1 folder is not among the 2"),
        (["train/a/x.txt", "train/b/x.jpg", "val/a/x.jpg"], "train/a: .* no images but x.txt"),
        (["train/a/x.jpg", "train/b/x/x.jpg", "val/a/x.jpg"], r"train/b: .* no images but x \("),
        (["train/a/x.jpg", "train/b/.x.jpg", "val/a/x.jpg"], "train/b: the class folder is empty"),
        (["train/a/x.jpg", "train/b/x.jpg", "val/a/x.txt"], "val/a: .* no images but x.txt"),
        (["train/a/x.jpg", "train/b/x.AVIF", "val/a/x.jpg"], "b: 1 image has .* for example x.A"),
        (
            ["train/a/x.gif", "train/a/x.heic", "train/b/x.jpg", "val/a/x.jpg"],
            "train/a: 2 images have an unsupported format, for example x.gif",
        ),
        (
            ["train/a/x.jpg", "train/b/x.jpg", "val/a/x.jpg", "val/b/x.jpg"],
            r"val/a/x.jpg \(and 1 more\) is corrupt or no image: replace or remove it",
        ),
        (
            ["train/a/x.jpg", os.fsdecode(b"train/b/caf\xe9.jpg"), "val/a/x.jpg"],
            r"train/b: the file name b'caf\\xe9.jpg' is not UTF-8.* Rename the files",
        ),
        (
            ["train/a/x.jpg", os.fsdecode(b"train/caf\xe9/x.jpg"), "val/a/x.jpg"],
            r"train: the file name b'caf\\xe9' is not UTF-8.* Rename the files",
        ),
    ],
)
def test_invalid_folders_are_refused(tmp_path, make, message):
    for name in make:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=message):
        loop.train(config(dataset="folder", data_dir=str(tmp_path)), tmp_path / "run")


def test_corrupt_validation_images_are_refused(tmp_path):
    """Images of every format, with and without bytes after their end, and truncated ones."""
    gray = noise(40, 40)[..., 0]
    cmyk = Image.merge("CMYK", [Image.fromarray(gray)] * 4)
    images = {"a.jpg": JPEG, "b.jpg": encode(cmyk), "c.jpg": JPEG + b"\n\n", "d.png": PNG}
    images |= {"e.webp": encode(gray, "WEBP"), "f.tif": encode(gray, "TIFF"), "g.jpg": PNG}
    for part in ("train/a", "train/b", "val/a"):
        (tmp_path / part).mkdir(parents=True)
        for name, content in images.items():
            (tmp_path / part / name).write_bytes(content)
    assert len(open_train_set("folder", str(tmp_path)).val_source) == len(images)
    for name, content in images.items():
        path = tmp_path / "val/a" / name
        path.write_bytes(content[: len(content) * 3 // 4])
        with pytest.raises(InputError, match=f"^{path} is corrupt or no image"):
            open_train_set("folder", str(tmp_path))
        path.write_bytes(content)


def test_hidden_folders_and_files_are_ignored(tmp_path):
    hidden = (".ipynb_checkpoints", "__MACOSX", "@eaDir")
    for part in ("train", "val"):
        for name in (*hidden, "a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
            for file in ("x.png", ".x.png", "._x.webp"):
                (tmp_path / part / name / file).write_bytes(PNG)
            (tmp_path / part / name / "@eaDir").mkdir()
    train_set = open_train_set("folder", str(tmp_path))
    assert train_set.classes == ["a", "b"]
    for source in (train_set.source, train_set.val_source):
        assert source.filenames == ["a/x.png", "b/x.png"]
        assert source.labels.tolist() == [0, 1]


def test_composed_and_decomposed_names_are_one_class(tmp_path, monkeypatch):
    """macOS stores names decomposed; `~` stands for the home directory."""
    names = ["\u00e9tude", "zoo"]
    for part, form in (("train", "NFD"), ("val", "NFC")):
        for name in names:
            path = tmp_path / part / unicodedata.normalize(form, name) / "x.png"
            path.parent.mkdir(parents=True)
            path.write_bytes(PNG)
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    train_set = open_train_set("folder", f"~/{tmp_path.name}")
    assert train_set.classes == names[::-1]
    for source in (train_set.source, train_set.val_source):
        labels = {unicodedata.normalize("NFC", name): i for i, name in enumerate(names[::-1])}
        found = [unicodedata.normalize("NFC", name.split("/")[0]) for name in source.filenames]
        assert [labels[name] for name in found] == source.labels.tolist()
    (tmp_path / "train" / names[0]).mkdir()
    with pytest.raises(InputError, match="two class folders have the same name"):
        open_train_set("folder", str(tmp_path))


def test_missing_imagenet_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"expected class folders in imagenet-1k/train/ or a tfds"):
        open_train_set("imagenet", str(tmp_path))


def test_from_a_checkpoint_of_other_classes(folder, tmp_path, monkeypatch):
    """A run starts with the checkpoint's weights except the head's, and keeps what is frozen. The
    saved model is the average of the weights, and has the accuracy that the log reports."""
    save(tmp_path / "pretrained")
    monkeypatch.setenv("HOME", str(tmp_path))
    run = epath.Path(tmp_path / "run")
    fields = {"dataset": "folder", "data_dir": str(folder), "init_from": "~/pretrained"}
    loop.train(config(**fields, **TUNED), run)
    state, (_, params, batch_stats) = read_last(run, **TUNED), random_split()
    trained = state.params
    for path, pretrained in (params | batch_stats).items():
        is_same = np.array_equal((state.params | state.batch_stats)[path], pretrained)
        assert is_same == path.startswith(("conv1", "layer1")), path
    for path, pretrained in params.items():
        if path.endswith("kernel"):  # the run is too short to change much
            is_similar = trained[path].shape == pretrained.shape and np.allclose(
                trained[path], pretrained, atol=0.1
            )
            assert is_similar == (not path.startswith("fc.")), path
    card = ModelCard.read(run)
    assert card.num_classes == 10
    assert card.source == {
        "trained_on": "folder",
        "num_images": 1437,
        "classes": sorted(NAMES),
    }

    best = max(curves.read_metrics(run), key=lambda line: (line["val_top1"], line["step"]))
    val = open_train_set("folder", str(folder)).val_source
    images = [decode((folder / "val" / name).read_bytes()) for name in val.filenames]
    probabilities = softmax_of(run, images, card.preprocessing)
    assert np.mean(probabilities.argmax(axis=1) == val.labels) == best["val_top1"]
    assert best["plain_val_top1"] != best["val_top1"]
    averages = functional.split(load_model(run / f"checkpoints/{int(state.step)}"))
    np.testing.assert_array_equal(averages.params["fc.bias"], state.ema["params"]["fc.bias"])
    assert not np.array_equal(trained["fc.bias"], averages.params["fc.bias"])
    assert ["digits-noise/top1" in line for line in curves.read_metrics(run)] == [False, True]


@pytest.mark.slow
def test_fewer_than_five_classes(tmp_path):
    for part in ("train", "val"):
        for i in range(16):
            path = tmp_path / part / "ab"[i % 2] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(noise(8, 8, i), "PNG"))
    run = epath.Path(tmp_path / "run")
    loop.train(config(dataset="folder", data_dir=str(tmp_path), batch_size=16), run)
    for line in curves.read_metrics(run):
        assert 0 <= line["val_top1"] <= line["val_top5"] == 1
    assert load_model(run)(jnp.zeros((1, 8, 8, 3))).shape == (1, 2)


def new(num_classes):
    return functional.split(zoo.create_model("resnet_20_bn", num_classes=num_classes))


def test_all_but_the_head_is_kept(tmp_path):
    checkpoint, pretrained, ours = save(tmp_path / "c"), random_split(), new(10)
    split = initial_weights(ours, str(checkpoint), "resnet_20_bn")
    for path, value in split.params.items():
        expected = ours if path.startswith("fc.") else pretrained
        np.testing.assert_array_equal(value, expected.params[path])
    for path, value in split.batch_stats.items():
        np.testing.assert_array_equal(value, pretrained.batch_stats[path])


def test_with_the_same_number_of_classes_the_head_is_kept(tmp_path):
    split = initial_weights(new(1000), str(save(tmp_path / "c")), "resnet_20_bn")
    np.testing.assert_array_equal(split.params["fc.bias"], random_split().params["fc.bias"])


def test_another_architecture_is_refused(tmp_path):
    checkpoint = str(save(tmp_path / "c"))
    with pytest.raises(InputError, match=r"init_from: .* holds a resnet_20_bn, not a resnet_50_bn"):
        initial_weights(new(10), checkpoint, "resnet_50_bn")


@pytest.mark.slow
def test_the_recipe_of_imagenet_learns_the_digits(folder, tmp_path):
    """train.py learns the digits with the configuration of resnet_34_an_bn1 at smaller sizes."""
    changes = {"dataset": "folder", "data_dir": folder, "image_size": 32, "dtype": "float32"}
    changes |= {"batch_size": 64, "num_epochs": 3, "warmup_epochs": 1, "eval_batch_size": 160}
    changes |= {"crop_scale": "(0.6, 1.0)", "horizontal_flip": "False"}
    flags = [f"--config.{field}={value}" for field, value in changes.items()]
    recipe = "--config=configs/imagenet.py:resnet_34_an_bn1"
    run = epath.Path(tmp_path / "run")
    ((status, out, err),) = finish(
        start("train.py", recipe, f"--workdir={run}", *flags, devices=1, cwd=ROOT)
    )
    assert status == 0, err
    assert "compiled in" in out
    epochs = curves.read_metrics(run)
    losses = [line["loss"] for line in epochs]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.8 * losses[0]
    assert max(line["val_top1"] for line in epochs) > 0.3
    assert load_model(run)(jnp.zeros((1, 32, 32, 3))).shape == (1, 10)
