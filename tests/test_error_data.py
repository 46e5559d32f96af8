"""The data of the error browser: saved predictions and thumbnails."""

import base64
import dataclasses
import io
import json

import numpy as np
import PIL.Image
import pytest
from etils import epath

from an_jax.data.sets.opening import open_image_set
from an_jax.data.sources import ImageList
from an_jax.errors import InputError
from an_jax.evaluation import thumbnails
from an_jax.evaluation.predictions import ALL, Predictions
from an_jax.evaluation.results_file import read_results
from an_jax.evaluation.thumbnails import read_thumbnails, write_thumbnails
from an_jax.report.predictions import collect_predictions, link_root
from tests import fake_archives, pictures
from tests.fake_tfds import prepare
from tests.small_model import CARD, random_split, save, softmax_of
from tests.suite import entries, run
from tests.test_prepared import IMAGE, LABEL

CLASSES = ["<img src=x onerror=alert(1)>", 'red "tulip"', "Daisy & co"]
FILES = ["javascript:alert(1).jpg", "a#b?c %.jpg", "\u2028é.jpg"]


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """Results of the models a and b on three images of each of three classes."""
    root = tmp_path_factory.mktemp("errors")
    for i in range(9):
        fake_archives.write(root / "mine" / CLASSES[i // 3] / FILES[i % 3], fake_archives.jpeg(i))
    card = dataclasses.replace(CARD, num_classes=3, source={"classes": CLASSES})
    kernel, bias = (random_split(3).params[f"fc.{name}"] for name in ("kernel", "bias"))
    # All classes are predicted, with probabilities far from 0 and 1.
    for name, scale, shift in (("a", 0.04, [-2.6, 0.3, 0]), ("b", -0.04, [3.5, 0.4, 0.2])):
        changes = {"fc.kernel": np.float32(scale) * kernel, "fc.bias": bias + np.float32(shift)}
        save(root / "models" / name, card, **changes)
    arguments = ["--checkpoint", root / "models", "--output_dir", root / "out"]
    assert run(*arguments, "--datasets", f"mine={root}/mine", "--save_predictions") == 0
    return epath.Path(root / "out")


def copy_of_a(output, name, n):
    """Adds a model with a's predictions for the first n images; returns its result."""
    (output / "predictions" / name).mkdir(exist_ok=True)
    for file in ("mine.csv", "classes.json"):
        (output / "predictions/a" / file).copy(output / "predictions" / name / file, overwrite=True)
    key, predictions = Predictions.read(output / "predictions/a/mine.npz")
    predictions = predictions.select(np.arange(9) < n)
    predictions.save(output / "predictions" / name / "mine.npz", key)
    top1 = float(np.mean(predictions.classes[ALL][:, 0] == predictions.labels))
    result = read_results(output)[0]
    return dataclasses.replace(result, model=name, n=n, scores={"top1": top1})


def expected_scores(root, model):
    """File names, labels [9] and probabilities [9, 3]."""
    paths = sorted((root / "mine").glob("*/*"))
    labels = np.array([CLASSES.index(path.parent.name) for path in paths])
    images = [pictures.decode(path.read_bytes()) for path in paths]
    names = [f"{path.parent.name}/{path.name}" for path in paths]
    return names, labels, softmax_of(root / "models" / model, images)


def unpack(content, n):
    """Predicted classes, their probabilities, and the probabilities of the labels."""
    fractions = np.frombuffer(content, "<u2", 2 * n, 4 * n).reshape(2, n) / 65535
    return np.frombuffer(content, "<u4", n), *fractions


def test_saved_predictions(output):
    """Models without saved predictions, and with fewer images or other classes, are left out."""
    others = [copy_of_a(output, name, n) for name, n in (("few", 6), ("other", 9), ("not", 9))]
    (output / "predictions/other/classes.json").write_text('["0", "1", "2"]')
    (output / "predictions/not/mine.csv").unlink()
    ((data,), blobs) = collect_predictions(output, [*others, *read_results(output)], output)
    assert (data["name"], data["images"]) == ("mine", 9)
    assert json.loads(blobs[data["classes"]]) == CLASSES
    assert [model["name"] for model in data["models"]] == ["a", "b"]
    reasons = {model["name"]: model["why"] for model in data["left_out"]}
    assert "not saved; evaluate it with --save_predictions" in reasons.pop("not")
    assert reasons.keys() == {"few", "other"}
    assert all("for other images or classes" in reason for reason in reasons.values())
    root = output.parent
    for model in data["models"]:
        names, labels, probabilities = expected_scores(root, model["name"])
        assert json.loads(blobs[data["files"]]) == {"names": names, "labels": labels.tolist()}
        predicted, confidence, probability = unpack(blobs[model["scores"]], 9)
        assert predicted.tolist() == probabilities.argmax(axis=1).tolist()
        np.testing.assert_allclose(confidence, probabilities.max(axis=1), atol=3e-5)
        np.testing.assert_allclose(probability, probabilities[np.arange(9), labels], atol=3e-5)


def test_thumbnails(output):
    """Those of all models whose predictions were saved, with the images' pixels."""
    root = output.parent
    ((data,), blobs) = collect_predictions(output, read_results(output), output)
    found = json.loads(blobs[data["thumbnails"]])
    mistakes = set()
    for model in "ab":
        names, labels, probabilities = expected_scores(root, model)
        is_wrong = probabilities.argmax(axis=1) != labels
        mistakes.update(name for name, wrong in zip(names, is_wrong, strict=True) if wrong)
    assert 3 < len(mistakes) < 9
    assert found["images"].keys() == mistakes
    for name, uri in found["images"].items():
        path = output / found["root"] / name
        thumbnail = PIL.Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2])))
        expected = PIL.Image.fromarray(pictures.decode(path.read_bytes()))
        expected.thumbnail((64, 64))
        assert (thumbnail.format, thumbnail.size) == ("WEBP", expected.size)
        difference = np.float32(thumbnail.convert("RGB")) - np.float32(expected)
        assert np.abs(difference).mean() < 12


@pytest.mark.parametrize(
    "change",
    [
        {"weights_digest": "other"},
        {"dtype": "bfloat16"},
        {"image_size": 24},
        {"n": 8},
        {"scores": {"top1": 0.125}},
    ],
)
def test_predictions_of_another_result(output, change):
    a, b = read_results(output)
    ((data,), _) = collect_predictions(output, [dataclasses.replace(a, **change), b], output)
    assert [model["name"] for model in data["models"]] == ["b"]
    assert [model["name"] for model in data["left_out"]] == ["a"]
    assert "not those of the result" in data["left_out"][0]["why"]


def test_subsets_of_classes(tmp_path, small_checkpoint, archives):
    """Their images and probabilities are those that the test set scores; nothing else is shown."""
    arguments = ["--checkpoint", small_checkpoint, "--data_dir", archives, "--output_dir", tmp_path]
    datasets = "imagenet-1k,imagenet-a-clean,imagenet-1k-reassessed"
    assert run(*arguments, "--datasets", datasets, "--save_predictions") == 0
    output = epath.Path(tmp_path)
    sets, blobs = collect_predictions(output, read_results(output), output)
    _, whole = Predictions.read(output / "predictions/small/imagenet-1k.npz")
    assert [data["name"] for data in sets] == ["imagenet-1k", "imagenet-a-clean"]
    assert len({data["classes"] for data in sets}) == 1
    for data in sets:
        files = json.loads(blobs[data["files"]])
        predicted, confidence, probability = unpack(
            blobs[data["models"][0]["scores"]], data["images"]
        )
        result = entries(tmp_path)[data["name"]]
        assert len(files["names"]) == data["images"] == result["n"]
        assert np.mean(predicted == files["labels"]) == result["top1"]
        is_scored = np.isin(whole.filenames.astype(str), files["names"])
        space = "imagenet-a" if data["name"] == "imagenet-a-clean" else ALL
        expected = whole.confidence[space][is_scored, 0], np.exp(-whole.nll[space][is_scored])
        np.testing.assert_allclose([confidence, probability], expected, atol=1e-5)
        is_wrong = predicted != files["labels"]
        mistakes = [name for name, wrong in zip(files["names"], is_wrong, strict=True) if wrong]
        assert set(json.loads(blobs[data["thumbnails"]])["images"]) == set(mistakes)


def predictions_of(names, confidence):
    """Wrong predictions in the order of the names."""
    n = len(names)
    classes, probabilities = np.ones((n, 1), np.int32), np.array(confidence)[:, None]
    filenames = np.array([name.encode() for name in names])
    return Predictions(
        filenames, np.zeros(n, np.int32), {ALL: classes}, {ALL: probabilities}, {ALL: -1.0}
    )


def test_limits(tmp_path, monkeypatch):
    """The most confident mistakes of each model come first; kept images are not read again."""
    monkeypatch.setattr(thumbnails, "MAX_PER_MODEL", 3)
    monkeypatch.setattr(thumbnails, "MAX_PER_SET", 4)
    source = pictures.in_memory(8)
    path = epath.Path(tmp_path) / "thumbnails/mine.json"
    filenames = np.array([name.encode() for name in source.filenames])

    def ranks_after(confidence, source=source):
        predictions = predictions_of(source.filenames, confidence)
        write_thumbnails(epath.Path(tmp_path), "mine", source, filenames, predictions, ALL)
        content = read_thumbnails(path, {source.fingerprint})
        return {name[0]: image["rank"] for name, image in content["images"].items()}

    ascending = np.linspace(0.1, 0.8, 8)
    assert ranks_after(ascending) == {"7": 0, "6": 1, "5": 2}
    kept = read_thumbnails(path, {source.fingerprint})["images"]["7.png"]["uri"]
    monkeypatch.setattr(thumbnails, "make_thumbnail", lambda pixels: "new")
    assert ranks_after(ascending[::-1]) == {"7": 0, "0": 0, "6": 1, "1": 1}
    images = read_thumbnails(path, {source.fingerprint})["images"]
    assert (images["7.png"]["uri"], images["0.png"]["uri"]) == (kept, "new")
    assert read_thumbnails(path, {"other"}) == {}
    other = dataclasses.replace(source, labels=source.labels + 1)
    assert ranks_after(ascending[::-1], other) == {"0": 0, "1": 1, "2": 2}
    path.write_text("[")
    assert ranks_after(ascending[::-1], other) == {"0": 0, "1": 1, "2": 2}


def test_thumbnails_of_tfds(tmp_path):
    """Records are read one by one; there is no file to link to."""
    content = [fake_archives.jpeg(i) for i in range(6)]
    examples = [
        {"image": io.BytesIO(image), "label": i, "file_name": f"{i}.JPEG"}
        for i, image in enumerate(content)
    ]
    features = {**IMAGE, "label": LABEL}
    prepare(tmp_path, "imagenet2012", "5.1.0", "validation", features, examples, num_shards=2)
    source = open_image_set("imagenet-1k", str(tmp_path), True)
    names = [e["filename"].numpy().decode() for e in source.read(range(6))]
    confidence = [0.5 if name in ("1.JPEG", "4.JPEG") else 0.4 for name in names]
    predictions = predictions_of(names, confidence)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(thumbnails, "MAX_PER_MODEL", 2)
        write_thumbnails(
            epath.Path(tmp_path), "imagenet-1k", source, predictions.filenames, predictions, ALL
        )
    path = epath.Path(tmp_path) / "thumbnails/imagenet-1k.json"
    found = read_thumbnails(path, {source.fingerprint})
    assert found["root"] is None
    assert {name: image["uri"] for name, image in found["images"].items()} == {
        f"{i}.JPEG": thumbnails.make_thumbnail(pictures.decode(content[i])) for i in (1, 4)
    }


@pytest.mark.parametrize(
    ("root", "page_dir", "expected"),
    [
        ("/data/val", "/runs/out", "../../data/val"),
        ("gs://b/my data", "/runs/out", "https://storage.cloud.google.com/b/my data"),
        ("gs://b/val", "gs://other/out", "https://storage.cloud.google.com/b/val"),
        ("/data/val", "gs://other/out", None),
    ],
)
def test_links(root, page_dir, expected):
    assert link_root(root, epath.Path(page_dir)) == expected


def test_an_image_that_cannot_be_read(tmp_path):
    source = ImageList(["a.png"], np.zeros(1, np.int32), str(tmp_path / "absent"))
    predictions = predictions_of(["a.png"], [0.5])
    with pytest.raises(
        InputError, match=r"mine: cannot read an image for its thumbnail: .*absent/a\.png"
    ):
        write_thumbnails(
            epath.Path(tmp_path), "mine", source, predictions.filenames, predictions, ALL
        )
