"""The suite as a whole: resuming, comparing with published results, refusing invalid input."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

from an_jax.data.sets.test_sets import PUBLISHED, TEST_SETS, expand_names
from an_jax.errors import InputError
from an_jax.evaluation import evaluator
from an_jax.evaluation.prediction_files import PredictionFiles, make_keys
from an_jax.evaluation.predictions import ALL, Predictions
from an_jax.zoo import Preprocessing
from an_jax.zoo.released import RELEASED
from tests import fake_archives
from tests.small_model import random_split, save
from tests.suite import entries, run


def test_names_of_groups():
    assert tuple(next(iter(RELEASED.values())).results) == PUBLISHED
    assert expand_names("published") == list(PUBLISHED)
    assert expand_names("imagenet-a,published,imagenet-a")[:2] == ["imagenet-a", "imagenet-1k"]
    assert {*PUBLISHED, "imagenet-c", "imagenet-p"} < {*expand_names("all")}
    assert not any(name.startswith("digits") for name in expand_names("all"))


def test_finished_sets_are_kept(tmp_path, small_checkpoint, archives, monkeypatch, capsys):
    """An interrupted run resumes; another model, setting or set of images starts anew."""
    calls, interruptions = [], [KeyboardInterrupt]
    evaluate = evaluator.Evaluator.__call__

    def count(self, *arguments, title, **options):
        if title.endswith("imagenet-sketch") and interruptions:
            raise interruptions.pop()
        calls.append(title.split()[-1])
        return evaluate(self, *arguments, title=title, **options)

    monkeypatch.setattr(evaluator.Evaluator, "__call__", count)
    both = ["imagenet-a", "imagenet-sketch"]
    out = tmp_path / "out"

    def evaluated(
        checkpoint=small_checkpoint, data_dir=archives, output_dir=out, options=(), status=0
    ):
        """Runs the command; returns the image sets that were not kept."""
        calls.clear()
        arguments = ["--checkpoint", checkpoint, "--data_dir", data_dir, "--output_dir", output_dir]
        assert run(*arguments, "--datasets", ",".join(both), *options) == status
        return list(calls)

    capsys.readouterr()
    assert evaluated(status=130) == ["imagenet-a"]
    assert capsys.readouterr().err.endswith("interrupted\n")
    assert evaluated() == ["imagenet-sketch"]
    assert evaluated() == []
    assert evaluated(output_dir=tmp_path / "whole") == both
    assert entries(out) == entries(tmp_path / "whole")
    file = out / "predictions/small/imagenet-a.npz"
    flipped = bytearray(file.read_bytes())
    flipped[len(flipped) // 2] ^= 255
    file.write_bytes(flipped)
    assert evaluated() == ["imagenet-a"]
    for name in both:
        shutil.copytree(archives / name, tmp_path / "moved" / name)
    assert evaluated(data_dir=tmp_path / "moved") == both
    assert evaluated(options=["--interpolation", "bicubic"]) == both
    kernel = "conv1.kernel"
    other = save(tmp_path / "other/small", **{kernel: random_split().params[kernel] * 2})
    assert evaluated(other) == both


def test_damaged_predictions_are_not_loaded(tmp_path):
    predictions = Predictions(
        np.array([b"a.png", b"b.png"]),
        np.array([3, 4], np.int32),
        {ALL: np.arange(10, dtype=np.int32).reshape(2, 5)},
        {ALL: np.full((2, 5), 0.125, np.float32)},
        {ALL: np.array([0.5, 0.25], np.float32)},
    )
    files = PredictionFiles(tmp_path, {"imagenet-1k": "key"})
    path = tmp_path / "imagenet-1k.npz"
    files.save("imagenet-1k", predictions)
    loaded = files.load("imagenet-1k")
    jax.tree.map(np.testing.assert_array_equal, vars(loaded), vars(predictions))
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[len(flipped) // 2] ^= 255
    for damaged in (content[:-200], content[:500], bytes(flipped), b""):
        path.write_bytes(damaged)
        assert files.find("imagenet-1k") is None
        with pytest.raises(InputError, match=f"{path} was changed or removed"):
            files.load("imagenet-1k")
    path.write_bytes(content)
    assert PredictionFiles(tmp_path, {"imagenet-1k": "other"}).find("imagenet-1k") is None
    path.unlink()
    assert files.find("imagenet-1k") is None


def test_comparison_with_published_results(tmp_path, capsys, archives, monkeypatch):
    """The exit status tells whether a released model reproduces its results on whole sets."""
    released = save(tmp_path / "resnet_50_bn_imagenet")
    arguments = ["--checkpoint", released, "--data_dir", archives, "--output_dir", tmp_path / "out"]
    arguments += ["--datasets", "imagenet-sketch", "--compare_published"]
    assert run(*arguments) == 0
    assert "partial" in capsys.readouterr().out
    whole = dataclasses.replace(TEST_SETS["imagenet-sketch"], num_images=5)
    monkeypatch.setitem(TEST_SETS, "imagenet-sketch", whole)
    assert run(*arguments) == 2
    assert "differs" in capsys.readouterr().out
    assert run(*arguments[2:], "--checkpoint", save(tmp_path / "mine")) == 1
    assert "resnet_50_bn_imagenet" in capsys.readouterr().err


def test_images_of_no_class_of_the_subset(tmp_path, capsys, small_checkpoint):
    name = "imagenet-1k/val/n02391049/ILSVRC2012_val_00000001.JPEG"  # of none of imagenet-a's
    fake_archives.write(tmp_path / name, fake_archives.jpeg(0))
    arguments = ["--checkpoint", small_checkpoint, "--data_dir", tmp_path]
    arguments += ["--output_dir", tmp_path / "out", "--datasets", "imagenet-a-clean"]
    assert run(*arguments) == 1
    assert "no image is of the classes of imagenet-a" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["--output_dir", "--checkpoint"])
def test_unknown_schemes_are_refused(tmp_path, capsys, small_checkpoint, place):
    given = {"--checkpoint": small_checkpoint, "--output_dir": tmp_path, place: "s4://bucket/x"}
    assert run(*(a for pair in given.items() for a in pair), "--datasets", "imagenet-1k") == 1
    assert "error: s4://bucket/x: paths are local, or in a bucket" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spoil", "datasets", "message"),
    [
        (("imagenet-1k/real.json", b"[[1], [2]]"), "imagenet-1k-reassessed", "has 2 entries"),
        (("imagenet-1k/real.json", b"[[1]"), "imagenet-1k-reassessed", "is not valid JSON"),
        (("imagenet-1k/real.json", b"[[1000]" + b",[]" * 49_999 + b"]"), "published", "entry 1 is"),
        (("imagenet-a/n01440764/x.jpg", b""), "imagenet-a", "not among the 200 classes"),
        (("imagenetv2-topimages/1000/x.jpg", b""), "published", "not among the 1,000 classes"),
        (None, "imagenet-2k", "unknown test set 'imagenet-2k'; the nearest is imagenet"),
    ],
)
def test_bad_data_is_refused_at_once(tmp_path, capsys, small_checkpoint, spoil, datasets, message):
    data_dir = tmp_path / "data"
    fake_archives.make_all(data_dir, heavy=False)
    if spoil:
        fake_archives.write(data_dir / spoil[0], spoil[1])
    arguments = ["--checkpoint", small_checkpoint, "--data_dir", data_dir]
    arguments += ["--output_dir", tmp_path / "out"]
    assert run(*arguments, "--datasets", datasets) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_real_labels_need_original_names(tmp_path, capsys, small_checkpoint):
    fake_archives.make_all(tmp_path, heavy=False)
    fake_archives.write(tmp_path / "imagenet-1k/val/n01440764/mine.JPEG", fake_archives.jpeg(0))
    arguments = ["--checkpoint", small_checkpoint, "--data_dir", tmp_path]
    arguments += ["--output_dir", tmp_path / "out"]
    assert run(*arguments, "--datasets", "imagenet-1k-reassessed") == 1
    assert "needs the original file names" in capsys.readouterr().err


def test_each_dtype_has_predictions_of_its_own():
    keys = [
        make_keys("digest", "resnet_20_bn", Preprocessing(), dtype, {"digits": "images"})
        for dtype in ("float32", "bfloat16")
    ]
    assert keys[0].keys() == {"digits"}
    assert keys[0] != keys[1]
