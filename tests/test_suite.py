"""The suite as a whole: reported, resumed, compared, and refused what is wrong."""

import dataclasses
import shutil

import pytest

from an_jax.data.sets.image_sets import (
    EXTRA_CORRUPTIONS,
)
from an_jax.data.sets.test_sets import PUBLISHED, TEST_SETS, expand_names
from an_jax.evaluation import evaluator
from an_jax.zoo.released import RELEASED
from tests import fake_archives
from tests.small_model import random_split, save
from tests.suite import entries, run


def test_everything_is_reported(evaluated):
    found = entries(evaluated)
    assert list(found) == expand_names("all")
    assert {TEST_SETS[name].csv for name in found} < {p.name for p in evaluated.iterdir()}
    table = (evaluated / "results.md").read_text()
    assert all(name in table for name in found)


def test_names_of_groups():
    assert tuple(next(iter(RELEASED.values())).results) == PUBLISHED
    assert expand_names("published") == list(PUBLISHED)
    assert expand_names("imagenet-a,published,imagenet-a")[:2] == ["imagenet-a", "imagenet-1k"]
    assert len(expand_names("all")) == 13


def test_finished_sets_are_kept(tmp_path, small_checkpoint, archives, evaluated, monkeypatch):
    """An interrupted run goes on; another model, setting or set of images starts anew."""
    calls, interruptions = [], [KeyboardInterrupt]
    whole = evaluator.Evaluator.__call__

    def counted(self, *arguments, title, **options):
        if title.endswith("imagenet-sketch") and interruptions:
            raise interruptions.pop()
        calls.append(title.split()[-1])
        return whole(self, *arguments, title=title, **options)

    monkeypatch.setattr(evaluator.Evaluator, "__call__", counted)
    arguments = ["--checkpoint", small_checkpoint, "--data_dir", archives, "--output_dir", tmp_path]
    arguments += ["--datasets", "imagenet-a,imagenet-sketch"]
    with pytest.raises(KeyboardInterrupt):
        run(*arguments)
    assert calls == ["imagenet-a"]
    assert run(*arguments) == 0
    assert calls == ["imagenet-a", "imagenet-sketch"]
    expected = entries(evaluated)
    assert entries(tmp_path) == {n: expected[n] for n in ("imagenet-a", "imagenet-sketch")}
    for change in (["--interpolation", "bicubic"], ["--dtype", "bfloat16"]):
        calls.clear()
        assert run(*arguments, *change) == 0
        assert calls == ["imagenet-a", "imagenet-sketch"]
    file = tmp_path / "predictions/small/imagenet-a.npz"
    whole_file = file.read_bytes()
    flipped = bytearray(whole_file)
    flipped[len(flipped) // 2] ^= 255
    for damaged in (whole_file[:500], bytes(flipped), b""):
        file.write_bytes(damaged)
        calls.clear()
        assert run(*arguments, *change) == 0
        assert calls == ["imagenet-a"]
    moved = shutil.copytree(archives, tmp_path / "moved", ignore=lambda *_: ["imagenet-p"])
    calls.clear()
    assert run(*arguments[:2], *arguments[4:], *change, "--data_dir", moved) == 0
    assert calls == ["imagenet-a", "imagenet-sketch"]
    calls.clear()
    kernel = "conv1.kernel"
    other = save(tmp_path / "other/small", **{kernel: random_split().params[kernel] * 2})
    assert run(*arguments[2:], *change, "--checkpoint", other) == 0
    assert calls == ["imagenet-a", "imagenet-sketch"]


def test_comparison_with_published_results(tmp_path, capsys, archives, monkeypatch):
    """The exit status says whether a released model, on whole sets, gives what was published."""
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


@pytest.mark.slow
def test_without_the_extra_corruptions(tmp_path, small_checkpoint, archives, evaluated):
    """They are not part of the benchmark."""
    extra = shutil.ignore_patterns(*EXTRA_CORRUPTIONS, "imagenet-p")
    shutil.copytree(archives, tmp_path / "data", ignore=extra)
    arguments = ["--checkpoint", small_checkpoint, "--data_dir", tmp_path / "data"]
    arguments += ["--output_dir", tmp_path / "out", "--datasets", "imagenet-c"]
    assert run(*arguments) == 0
    entry, expected = entries(tmp_path / "out")["imagenet-c"], entries(evaluated)["imagenet-c"]
    for corruption in EXTRA_CORRUPTIONS:
        del expected["errors"][corruption]
    assert entry == expected


def test_images_of_no_class_of_the_subset(tmp_path, capsys, small_checkpoint):
    name = "imagenet-1k/val/n02391049/ILSVRC2012_val_00000001.JPEG"  # of none of imagenet-a's
    fake_archives.write(tmp_path / name, fake_archives.jpeg(0))
    arguments = ["--checkpoint", small_checkpoint, "--data_dir", tmp_path]
    arguments += ["--output_dir", tmp_path / "out", "--datasets", "imagenet-a-clean"]
    assert run(*arguments) == 1
    assert "no image is of the classes of imagenet-a" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["--output_dir", "--checkpoint"])
def test_only_data_may_lie_elsewhere(tmp_path, capsys, small_checkpoint, place):
    given = {"--checkpoint": small_checkpoint, "--output_dir": tmp_path, place: "gs://bucket/x"}
    assert run(*(a for pair in given.items() for a in pair), "--datasets", "imagenet-1k") == 1
    assert "must be a local directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spoil", "datasets", "message"),
    [
        (("imagenet-1k/real.json", b"[[1], [2]]"), "imagenet-1k-reassessed", "has 2 entries"),
        (("imagenet-1k/real.json", b"[[1]"), "imagenet-1k-reassessed", "is not valid JSON"),
        (("imagenet-1k/real.json", b"[[1000]" + b",[]" * 49_999 + b"]"), "published", "entry 1 is"),
        (("imagenet-a/n01440764/x.jpg", b""), "imagenet-a", "none of the 200 classes"),
        (("imagenetv2-topimages/1000/x.jpg", b""), "published", "none of the 1000 classes"),
        (None, "imagenet-2k", "unknown test set 'imagenet-2k'; the nearest is imagenet"),
    ],
)
def test_bad_data_is_said_at_once(tmp_path, capsys, small_checkpoint, spoil, datasets, message):
    data_dir = tmp_path / "data"
    fake_archives.make_all(data_dir, heavy=False)
    if spoil:
        fake_archives.write(data_dir / spoil[0], spoil[1])
    arguments = [
        "--checkpoint",
        small_checkpoint,
        "--data_dir",
        data_dir,
        "--output_dir",
        tmp_path / "out",
    ]
    assert run(*arguments, "--datasets", datasets) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_real_labels_need_original_names(tmp_path, capsys, small_checkpoint):
    fake_archives.make_all(tmp_path, heavy=False)
    fake_archives.write(tmp_path / "imagenet-1k/val/n01440764/mine.JPEG", fake_archives.jpeg(0))
    arguments = [
        "--checkpoint",
        small_checkpoint,
        "--data_dir",
        tmp_path,
        "--output_dir",
        tmp_path / "out",
    ]
    assert run(*arguments, "--datasets", "imagenet-1k-reassessed") == 1
    assert "needs the original file names" in capsys.readouterr().err
