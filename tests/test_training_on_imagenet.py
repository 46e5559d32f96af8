"""ImageNet's layouts for training, and ReaL's labels."""

import dataclasses
import shutil

import numpy as np
import optax
import pytest
from etils import epath

from an_jax import parallel
from an_jax.checkpoint import ModelCard
from an_jax.data.sets.class_index import imagenet_wnids
from an_jax.data.sets.real_labels import match_labels
from an_jax.data.sets.train_sets import TrainSet
from an_jax.errors import InputError
from an_jax.evaluation.evaluator import Evaluator
from an_jax.evaluation.metrics import real_accuracy
from an_jax.training import curves, eval_sets, loop, validation
from an_jax.training.step import init_state
from an_jax.zoo import Preprocessing
from tests import fake_archives
from tests.digits_runs import config
from tests.small_model import random_split


def open_imagenet(archives, tmp_path):
    """ImageNet with ReaL's labels; its validation images are the training images too."""
    for part in ("train", "val"):
        shutil.copytree(archives / "imagenet-1k/val", tmp_path / "imagenet-1k" / part)
    shutil.copy(archives / "imagenet-1k/real.json", tmp_path / "imagenet-1k")
    return loop.open_train_set("imagenet", str(tmp_path))


def test_validation_with_real_labels(tmp_path, archives, monkeypatch):
    """ReaL's accuracy uses ReaL's labels, which are matched to the images by file name."""
    seen = []

    def spy(classes, label_sets, k):
        seen.append(label_sets)
        return real_accuracy(np.array([[7] * 5] * len(classes)), label_sets, k)

    monkeypatch.setattr(validation, "real_accuracy", spy)
    card = ModelCard("resnet_20_bn", 1000, Preprocessing(image_size=8), {})
    split, train_set = random_split(), open_imagenet(archives, tmp_path)
    validate = validation.Validation(split.definition, card, train_set, 16, parallel.make_mesh())
    state = init_state(split, optax.identity())
    scores = validate(parallel.replicate(state, parallel.make_mesh()), 1)
    in_order = sorted(fake_archives.REAL_LABELS)
    assert sorted(map(list, seen[0])) == in_order
    with_labels = [labels for labels in in_order if labels]
    assert scores["real_top1"] == np.mean([7 in labels for labels in with_labels])
    assert scores.keys() == {"val_top1", "val_top5", "real_top1", "real_top5"}


def cannot_read(*args):
    raise InputError("1.jpg cannot be read")


def test_further_test_sets(archives, monkeypatch, capsys):
    """They have evaluate.py's scores: of ImageNet-A, accuracy among its 200 classes."""
    mesh, split = parallel.make_mesh(), random_split()
    names = ("imagenet-1k-reassessed", "imagenet-a", "imagenet-o")
    changes = {"eval_sets": ",".join(names), "eval_sets_epochs": 2, "num_epochs": 5}
    card = ModelCard("resnet_20_bn", 1000, Preprocessing(image_size=8), {})
    further = eval_sets.open_eval_sets(config(data_dir=f"{archives}/", **changes), card)
    n = len(further.sources["imagenet-a"])
    assert f"note: {n} of the 7500 images of imagenet-a\n" in capsys.readouterr().out
    assert further.epochs == {2, 4, 5}
    images = TrainSet(further.sources["imagenet-a"], further.sources["imagenet-a"], 1000)
    validate = validation.Validation(split.definition, card, images, 16, mesh, further)
    state = parallel.replicate(init_state(split, optax.identity()), mesh)
    scores = validate(state, 2)
    evaluate = Evaluator(split.definition, 1000, card.preprocessing, 16, mesh)
    found = evaluate(state.params, state.batch_stats, images.source, title="")
    restricted, whole = (found.classes[space][:, 0] for space in ("imagenet-a", "all"))
    assert scores["imagenet-a/top1"] == np.mean(restricted == found.labels)
    assert scores["imagenet-a/unrestricted_top1"] == np.mean(whole == found.labels)
    assert {name.split("/")[0] for name in scores} == {"val_top1", "val_top5", *names}
    assert "imagenet-o/aupr" in scores
    assert all(isinstance(value, float) for value in scores.values())
    assert not any("/" in name for name in validate(state, 3))
    monkeypatch.setattr(validate, "_predict", cannot_read)
    assert validate(state, 2).keys() == {"val_top1", "val_top5"}
    assert (
        "warning: eval_sets are not scored after epoch 2: 1.jpg cannot" in capsys.readouterr().out
    )
    own = dataclasses.replace(card, source={"classes": [f"class {i}" for i in range(1000)]})
    with pytest.raises(InputError, match="imagenet-1k-reassessed has ImageNet's classes, the mod"):
        eval_sets.open_eval_sets(config(data_dir=f"{archives}/", **changes), own)


@pytest.mark.parametrize("flat", [False, True])
def test_file_names_of_hugging_face(tmp_path, archives, flat):
    """They end in the class, which labels the images where there are no class folders."""
    expected = open_imagenet(archives, tmp_path).val_source
    for part in ("train", "val"):
        for name in expected.filenames:
            path = tmp_path / "imagenet-1k" / part / name
            folder = path.parents[1] if flat else path.parent
            path.rename(folder / f"{path.stem}_{path.parent.name}.JPEG")
            if flat and not any(path.parent.iterdir()):
                path.parent.rmdir()
    train_set = loop.open_train_set("imagenet", str(tmp_path))
    for source in (train_set.source, train_set.val_source):
        assert sorted(source.labels) == sorted(expected.labels)
        for name, label in zip(source.filenames, source.labels, strict=True):
            assert name.endswith(f"_{imagenet_wnids()[label]}.JPEG")
    matched = match_labels(train_set.val_source.filenames, train_set.real_labels)
    assert sorted(map(list, matched)) == sorted(fake_archives.REAL_LABELS)


def test_other_file_names_do_without_real_labels(tmp_path, archives, capsys):
    open_imagenet(archives, tmp_path)
    for path in (tmp_path / "imagenet-1k/val").glob("*/*"):
        path.rename(path.with_name(path.name[-8:]))
    assert loop.open_train_set("imagenet", str(tmp_path)).real_labels is None
    assert "note: ReaL accuracy is not measured: " in capsys.readouterr().out


def test_a_missing_test_set_is_refused(tmp_path, archives):
    open_imagenet(archives, tmp_path)
    with pytest.raises(
        InputError, match=r"no imagenet-r in .*: expected class folders in imagenet"
    ):
        loop.train(
            config(dataset="imagenet", data_dir=str(tmp_path), eval_sets="imagenet-r"),
            tmp_path / "run",
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_with_real_labels(tmp_path, archives, capsys):
    open_imagenet(archives, tmp_path)
    few = {"batch_size": 16, "num_epochs": 1, "warmup_epochs": 0}
    loop.train(config(dataset="imagenet", data_dir=str(tmp_path), **few), tmp_path / "run")
    (line,) = curves.read_metrics(epath.Path(tmp_path / "run"))
    assert {"val_top1", "val_top5", "real_top1", "real_top5"} <= line.keys()
    assert "  ReaL " in capsys.readouterr().out
