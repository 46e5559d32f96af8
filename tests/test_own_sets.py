"""evaluate.py --datasets NAME=PATH: custom class folders, and the files about classes."""

import csv
import dataclasses
import unicodedata

import numpy as np
import PIL.Image
import pytest

from an_jax.data.sets.class_index import imagenet_names
from an_jax.data.sets.own_sets import open_own_set, parse_datasets
from an_jax.errors import InputError
from an_jax.evaluation.class_files import MAX_CLASSES, write_class_files
from an_jax.evaluation.predictions import ALL, Predictions
from tests import fake_archives, pictures
from tests.small_model import CARD, save, softmax_of
from tests.suite import entries, run

FLOWERS = ("rose", "red tulip", "Daisy")
# Folder -> label. The first four are the model's favourites.
PETS = {"n01443537": 1, "006": 6, "jellyfish": 107, "13": 13, "Great_White_Shark": 2}


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    """Class folders of ImageNet's classes, with three images each, and a text."""
    root = tmp_path_factory.mktemp("home") / "pets"
    for i, folder in enumerate(PETS):
        for j in range(3):
            fake_archives.write(root / folder / f"{j}.jpg", fake_archives.jpeg(3 * i + j))
    (root / "notes.txt").touch()
    return root


def read_csv(path):
    with path.open(newline="", encoding="utf8") as file:
        return list(csv.DictReader(file))


def expect(checkpoint, pets):
    """File names in order, labels [n] and probabilities [n, 1000]."""
    names = sorted(str(path.relative_to(pets)) for path in pets.glob("*/*.jpg"))
    labels = np.array([PETS[name.split("/")[0]] for name in names])
    images = [pictures.decode((pets / name).read_bytes()) for name in names]
    return names, labels, softmax_of(checkpoint, images)


def test_folders_of_imagenets_classes(
    tmp_path, capsys, monkeypatch, small_checkpoint, archives, pets
):
    """Beside a known test set. The folders are named by wnid, label, and class."""
    monkeypatch.setenv("HOME", str(pets.parent))
    arguments = ["--checkpoint", small_checkpoint, "--data_dir", archives, "--output_dir", tmp_path]
    datasets = "imagenet-sketch,pets=~/pets"
    assert run(*arguments, "--datasets", datasets, "--save_predictions") == 0
    printed = capsys.readouterr().out
    assert "note: pets: 995 of the 1000 classes have no folder\n" in printed
    assert "| Model | Params (M) | imagenet-sketch | pets |" in printed

    names, labels, probabilities = expect(small_checkpoint, pets)
    order = np.argsort(-probabilities, axis=1)
    is_correct = order[:, 0] == labels
    hits = (order[:, :5] == labels[:, None]).any(axis=1)
    assert 0 < is_correct.mean() < hits.mean() < 1
    results = entries(tmp_path)
    assert list(results) == ["imagenet-sketch", "pets"]
    pet_result = results["pets"]
    assert (pet_result["n"], pet_result["expected"]) == (15, 15)
    assert (pet_result["top1"], pet_result["top5"]) == (is_correct.mean(), hits.mean())
    nll = -np.log(probabilities[np.arange(15), labels]).mean()
    assert pet_result["nll"] == pytest.approx(nll, rel=1e-4)
    gap = abs(probabilities.max(axis=1).mean() - is_correct.mean())
    assert pet_result["rms_calibration_error"] == pytest.approx(gap, abs=1e-4)
    (row,) = read_csv(tmp_path / "results-pets.csv")
    assert float(row["top1"]) == pytest.approx(100 * is_correct.mean(), abs=1e-3)
    rows = read_csv(tmp_path / "predictions/small/pets.csv")
    assert [row["filename"] for row in rows] == names
    assert [int(row["top1"]) for row in rows] == order[:, 0].tolist()

    folder = tmp_path / "classes/small/pets"
    check_class_files(folder, names, labels, order)
    with PIL.Image.open(folder / "confusion_matrix.png") as picture:
        assert min(picture.size) > 400
    assert (tmp_path / "classes/small/imagenet-sketch/accuracy.csv").is_file()


def check_class_files(folder, filenames, labels, order):
    class_names, best = imagenet_names(), order[:, 0]
    present = sorted(set(labels.tolist()))
    rows = read_csv(folder / "accuracy.csv")
    assert list(rows[0]) == ["class", "label", "images", "top1", "top5"]
    assert [int(row["label"]) for row in rows] == present
    for row, label in zip(rows, present, strict=True):
        mine = order[labels == label]
        assert (row["class"], row["images"]) == (class_names[label], "3")
        assert row["top1"] == f"{100 * np.mean(mine[:, 0] == label):.3f}"
        assert row["top5"] == f"{100 * np.mean((mine[:, :5] == label).any(axis=1)):.3f}"
    rows = read_csv(folder / "confusions.csv")
    counts = [int(row["images"]) for row in rows]
    assert counts == sorted(counts, reverse=True)
    assert sum(counts) == np.sum(best != labels)
    for row in rows:
        pair = class_names.index(row["class"]), class_names.index(row["predicted"])
        images = [i for i in range(len(labels)) if (labels[i], best[i]) == pair]
        assert (int(row["images"]), row["example"]) == (len(images), filenames[images[0]])
        assert row["percent"] == f"{100 * len(images) / 3:.3f}"
    rows = read_csv(folder / "confusion_matrix.csv")
    assert list(rows[0]) == ["class", *(class_names[label] for label in present), "other"]
    for row, label in zip(rows, present, strict=True):
        predicted = best[labels == label].tolist()
        counts = [predicted.count(other) for other in present]
        assert [*row.values()] == [class_names[label], *map(str, [*counts, 3 - sum(counts)])]


def test_classes_of_a_fine_tuned_model(tmp_path, capsys):
    """The model has fewer than five classes, and one has no images."""
    card = dataclasses.replace(CARD, num_classes=3, source={"classes": FLOWERS})
    checkpoint = save(tmp_path / "flowers", card)
    for i, folder in enumerate(["rose", "red_tulip", "red_tulip"]):
        fake_archives.write(tmp_path / "own" / folder / f"{i}.jpg", fake_archives.jpeg(i))
    out = tmp_path / "out"
    arguments = ["--checkpoint", checkpoint, "--output_dir", out]
    assert run(*arguments, "--datasets", f"mine={tmp_path}/own") == 0
    assert "note: mine: 1 of the 3 classes have no folder\n" in capsys.readouterr().out
    best = softmax_of(checkpoint, map(fake_archives.picture, (1, 2, 0))).argmax(axis=1)
    assert entries(out)["mine"]["top1"] == np.mean(best == [1, 1, 0])
    assert entries(out)["mine"]["top5"] == 1
    assert not (out / "thumbnails").exists()  # these need --save_predictions
    rows = read_csv(out / "classes/flowers/mine/accuracy.csv")
    assert [(row["class"], row["images"]) for row in rows] == [("rose", "1"), ("red tulip", "2")]
    assert read_csv(out / "model_metadata.csv")[0]["pretrain"] == ""
    other = dataclasses.replace(card, source={"classes": FLOWERS[::-1]})
    arguments += ["--checkpoint", save(tmp_path / "reversed", other)]
    assert run(*arguments, "--datasets", f"mine={tmp_path}/own") == 1
    assert "error: flowers and reversed have different classes" in capsys.readouterr().err


def test_confusions_of_many_classes(tmp_path):
    """The matrix has the classes that are confused most often, next to each other."""
    labels = np.repeat(np.arange(1000), 4)
    best = labels.copy()
    best[4 * 700 : 4 * 700 + 3] = 200
    best[4 * 900 : 4 * 900 + 2] = 100
    names = np.array([f"{i}.jpg".encode() for i in range(4000)])
    predictions = Predictions(names, labels, {ALL: best[:, None]}, {}, {})
    write_class_files(tmp_path, predictions, ALL, [f"${i}" for i in range(1000)])
    rows = read_csv(tmp_path / "confusions.csv")
    assert [[*row.values()] for row in rows] == [
        ["$700", "$200", "3", "75.000", "2800.jpg"],
        ["$900", "$100", "2", "50.000", "3600.jpg"],
    ]
    rows = read_csv(tmp_path / "confusion_matrix.csv")
    assert [row["class"] for row in rows[:5]] == ["$700", "$200", "$900", "$100", "$0"]
    assert [*rows[0].values()][:3] == ["$700", "1", "3"]
    assert (len(rows), len(rows[0])) == (MAX_CLASSES, 1 + MAX_CLASSES)  # none is taken for others
    assert len(read_csv(tmp_path / "accuracy.csv")) == 1000


@pytest.mark.parametrize(
    ("folder", "label"),
    [
        ("n02113186", 264),
        ("Cardigan", 264),  # the dog
        ("cardigan", 474),  # the garment
        ("SHIH-TZU", 155),
        ("crane_(machine)", 517),
        ("0", 0),
        ("0042", 42),
        ("999", 999),
    ],
)
def test_names_of_imagenets_folders(tmp_path, folder, label):
    fake_archives.write(tmp_path / folder / "x.jpg", b"")
    source = open_own_set(str(tmp_path), imagenet_names())
    assert source.labels.tolist() == [label]


def test_names_of_other_classes(tmp_path):
    """Names in another case or Unicode form. Numbers are classes of a model without names."""
    names = ["\u00e9tude", "Zoo", "7"]
    for folder in (unicodedata.normalize("NFD", names[0]), "ZOO"):
        fake_archives.write(tmp_path / folder / "x.jpg", b"")
    assert sorted(open_own_set(str(tmp_path), names).labels) == [0, 1]
    fake_archives.write(tmp_path / "numbers/07/x.jpg", b"")
    assert open_own_set(str(tmp_path / "numbers"), ["5", "7"]).labels.tolist() == [1]


def test_folders_in_a_bucket(bucket):
    for folder in ("tench", "Tabby"):
        (bucket.path / f"pets/{folder}/x.jpg").write_bytes(b"")
    _, folders = parse_datasets(f"pets={bucket.path}/pets/")
    source = open_own_set(folders["pets"], imagenet_names())
    assert source.filenames == ["Tabby/x.jpg", "tench/x.jpg"]
    assert source.labels.tolist() == [281, 0]
    with pytest.raises(InputError, match=f"no data directory {bucket.path}/absent"):
        open_own_set(f"{bucket.path}/absent", imagenet_names())


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (
            ["n01440764", "mine", "yours"],
            r"2 folders are not among the 1,000 classes \(mine, yours",
        ),
        (["CARDIGAN"], "1 folder is not among"),
        (["1000"], "1 folder is not among"),
        ([""], "has no class folders: sort the images into folders such as n01440764"),
        ([], "no data directory"),
    ],
)
def test_unknown_folders_are_refused(tmp_path, folders, message):
    for folder in folders:
        fake_archives.write(tmp_path / "own" / folder / "x.jpg", b"")
    with pytest.raises(InputError, match=message):
        open_own_set(str(tmp_path / "own"), imagenet_names())


def test_lists_of_test_sets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names, folders = parse_datasets("b=own/x=y,published,a=gs://bucket/x,imagenet-1k")
    assert (names[:2], names[-1], len(names)) == (["b", "imagenet-1k"], "a", 10)
    assert folders == {"b": f"{tmp_path}/own/x=y", "a": "gs://bucket/x"}


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        ("imagenet-1k=x", "'imagenet-1k' is taken by another test set"),
        ("all=x", "'all' is taken"),
        ("sketch=x", "'sketch' is taken"),  # whose results file is results-sketch.csv
        ("a/b=x", "'a/b' is not a test set, and cannot name one: use letters"),
        ("=x", "'' is not a test set"),
        ("..=x", "'..' is not a test set"),
        ("pets=", "--datasets pets=: expected NAME=PATH"),
        ("pets=x,pets=y", "two sets are named pets"),
        ("pets=s4://x", "s4://x: paths are local, or in a bucket"),
    ],
)
def test_bad_lists_of_test_sets(tmp_path, capsys, small_checkpoint, datasets, message):
    arguments = ["--checkpoint", small_checkpoint, "--output_dir", tmp_path]
    assert run(*arguments, "--datasets", datasets) == 1
    assert message in capsys.readouterr().err
