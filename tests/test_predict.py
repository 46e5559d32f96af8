"""Predictions for pictures of one's own: python -m an_jax.predict and load_classifier."""

import dataclasses
import json
import re
import shutil

import numpy as np
import PIL.Image
import pytest
from sklearn.datasets import load_sample_images

from an_jax import load_classifier, predict
from an_jax.data.sets.class_index import imagenet_names, imagenet_wnids
from an_jax.errors import InputError
from tests import pictures
from tests.small_model import CARD, save, softmax_of


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A folder with two photographs, a hidden one and a text."""
    folder = tmp_path_factory.mktemp("photographs")
    (folder / "below").mkdir()
    samples = load_sample_images()
    for name, pixels in zip(("china.jpg", "below/flower.png"), samples.images, strict=True):
        PIL.Image.fromarray(pixels).save(folder / name)
    shutil.copy(folder / "china.jpg", folder / ".hidden.jpg")
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save(tmp_path_factory.mktemp("checkpoints") / "small")


@pytest.fixture(scope="module")
def classifier(checkpoint):
    return load_classifier(checkpoint, batch_size=2)


def test_the_command(checkpoint, photographs, tmp_path, capsys):
    arguments = ["--checkpoint", str(checkpoint), str(photographs)]
    assert predict.main([*arguments, "--json", "--picture", str(tmp_path / "sheet.png")]) == 0
    found = json.loads(capsys.readouterr().out)
    paths = [str(photographs / name) for name in ("below/flower.png", "china.jpg")]
    assert list(found) == paths
    expected = softmax_of(checkpoint, [np.asarray(PIL.Image.open(path)) for path in paths])
    for row, probabilities in zip(found.values(), expected, strict=True):
        labels = [best["label"] for best in row]
        assert labels == np.argsort(-probabilities)[:5].tolist()
        assert [best["name"] for best in row] == [imagenet_names()[label] for label in labels]
        np.testing.assert_allclose(
            [best["probability"] for best in row], probabilities[labels], rtol=1e-4
        )
    with PIL.Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > sheet.height > 200

    assert predict.main(arguments) == 0
    best = found[paths[0]][0]
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [paths[0], f"  {100 * best['probability']:5.1f} %  {best['name']}"]
    assert len(lines) == 2 * 6


def test_paths_arrays_and_images_are_the_same(classifier, photographs):
    path = photographs / "below" / "flower.png"
    image = PIL.Image.open(path)
    same = classifier([path, np.asarray(image), image])
    assert same[0] == same[1] == same[2]
    assert classifier([]) == []


def test_preprocessing_is_pillows(classifier, photographs):
    image = np.asarray(PIL.Image.open(photographs / "china.jpg"))
    settings = CARD.preprocessing
    resized = int(settings.image_size / settings.crop_pct)
    expected = pictures.resize_and_center_crop(
        image, resized, settings.image_size, settings.interpolation
    )
    np.testing.assert_array_equal(classifier.preprocess([image]), [expected])


def test_a_fine_tuned_model_has_its_own_classes(tmp_path):
    card = dataclasses.replace(CARD, num_classes=2, source={"classes": ["rose", "tulip"]})
    classifier = load_classifier(save(tmp_path / "flowers", card))
    (row,) = classifier([np.zeros((9, 9, 3), np.uint8)])
    assert {best.name for best in row} == {"rose", "tulip"}
    assert sum(best.probability for best in row) == pytest.approx(1)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), r"picture 0 is float32 \[4, 4, 3\]: expected uint8"),
        ("/no/such.jpg", "/no/such.jpg cannot be read"),
    ],
)
def test_what_is_no_picture_is_refused(classifier, picture, message):
    with pytest.raises(InputError, match=message):
        classifier([picture])


@pytest.mark.parametrize(
    ("names", "message"),
    [(["absent.jpg"], "no picture .*absent.jpg"), (["empty"], "holds no images")],
)
def test_bad_paths(checkpoint, tmp_path, capsys, names, message):
    (tmp_path / "empty").mkdir()
    paths = [str(tmp_path / name) for name in names]
    assert predict.main(["--checkpoint", str(checkpoint), *paths]) == 1
    assert re.search(message, capsys.readouterr().err)


def test_every_class_of_imagenet_has_a_name():
    assert len(set(imagenet_names())) == len(imagenet_wnids()) == 1000
    assert imagenet_names()[imagenet_wnids().index("n02123045")] == "tabby"
