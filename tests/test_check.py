"""The check of a data directory, on trees of empty files with all kinds of defects."""

import dataclasses
import json
import os
import re

import pytest

from an_jax.data.check import main
from an_jax.data.sets.class_index import imagenet_wnids, subset
from an_jax.data.sets.downloads import DOWNLOADS
from an_jax.data.sets.image_sets import IMAGE_SETS
from an_jax.data.sets.opening import find_folder
from an_jax.data.sets.test_sets import TEST_SETS, expand_names
from an_jax.data.tf_on_cpu import tf
from tests.test_builders import IMAGES, inside, prepare, write_tar

WNIDS = imagenet_wnids()
NUMBERS = [str(label) for label in range(1000)]
REAL = [[1]] * 46_837 + [[]] * 3_163


def wnids(name):
    return [WNIDS[label] for label in subset(name)]


def put(root, folders, file="a.JPEG"):
    """Puts an empty file, which is no valid image, into each folder."""
    for folder in folders:
        (root / folder).mkdir(parents=True)
        (root / folder / file).touch()


@pytest.fixture(autouse=True)
def one_image_a_class(monkeypatch):
    """Shrinks each set to one image per class, and ImageNet-C and -P to 100 classes of 2 kinds."""
    for name, image_set in IMAGE_SETS.items():
        labels = range(100) if "/" in name else image_set.labels
        num_images = len(labels) * (image_set.num_frames or 1)
        small = dataclasses.replace(image_set, num_images=num_images, labels=labels)
        monkeypatch.setitem(IMAGE_SETS, name, small)
    fog_and_snow = [f"imagenet-c/{kind}/{n}" for kind in ("fog", "snow") for n in range(1, 6)]
    few = {"imagenet-c": fog_and_snow, "imagenet-p": ["imagenet-p/tilt", "imagenet-p/snow"]}
    for name, image_sets in few.items():
        test_set = dataclasses.replace(TEST_SETS[name], image_sets=tuple(image_sets))
        monkeypatch.setitem(TEST_SETS, name, test_set)


@pytest.fixture
def check(tmp_path, capsys):
    """Runs the command and checks its exit status; returns its output with single spaces."""

    def run(datasets, status=1, data_dir=tmp_path):
        assert main(["--data_dir", str(data_dir), "--datasets", datasets]) == status
        return " ".join("".join(capsys.readouterr()).split())

    return run


def test_all_ok(tmp_path, check):
    put(tmp_path / "imagenet-1k/val", WNIDS)
    for name in ("matched-frequency", "threshold0.7", "top-images"):
        put(tmp_path / f"imagenetv2-{name}-format-val", NUMBERS)
    (tmp_path / "imagenet-sketch").mkdir()
    (tmp_path / "imagenet-sketch/sketch").symlink_to(tmp_path / "imagenet-1k/val")
    test_sets = [TEST_SETS[name] for name in expand_names("all")]
    for name in {name for test_set in test_sets for name in test_set.image_sets}:
        image_set = IMAGE_SETS[name]
        if find_folder(image_set, str(tmp_path)) is None:
            put(tmp_path / name, image_set.label_of, "a.mp4" if image_set.num_frames else "a.JPEG")
    (tmp_path / "imagenet-1k/real.json").write_text(json.dumps(REAL))
    out = check("all", status=0)
    assert "imagenet-1k ok 1,000 of 1,000 images 1,000 of 1,000 classes imagenet-1k/val" in out
    assert "classes imagenetv2-top-images-format-val (a folder's number is its label: 0, 1," in out
    assert "imagenet-r ok 200 of 200 images 200 of 200 classes imagenet-r " in out
    assert "imagenet-c ok 1,000 of 1,000 images 100 of 100 classes 2 of 2 corruptions" in out
    assert "imagenet-p ok 6,200 of 6,200 images 100 of 100 classes 2 of 2 perturb" in out
    assert "real.json ok 50,000 of 50,000 entries 46,837 of 46,837 with labels imagenet-1k" in out
    assert out.count(" ok ") == len(DOWNLOADS)
    assert "get " not in out


def test_every_set_has_download_instructions():
    on_disk = {name.split("/")[0] for name, s in IMAGE_SETS.items() if not s.in_memory}
    assert on_disk | {"real.json"} == DOWNLOADS.keys()


def test_all_missing(tmp_path, check):
    out = check("all")
    assert out.count(" missing 0 of ") == len(DOWNLOADS)
    assert out.count(" into a folder ARCHIVES, then ") == len(DOWNLOADS)
    assert f"tar -xf ARCHIVES/imagenet-o.tar -C {tmp_path} or python -m an_jax.data.builders" in out
    assert "imagenetv2-top-images.tar.gz from https://huggingface.co/datasets/vaishaal/Image" in out
    assert "missing: fog, snow get noise.tar" in out


@pytest.mark.parametrize(
    ("folders", "problem"),
    [
        (NUMBERS[1:], r"999 of 1,000 classes .* classes without images: 1 \(0\)"),
        ([f"{n:04}" for n in range(7)], r"7 of 1,000 classes .* 993 \(0007, 0008, 0009, ...\)"),
        ([*NUMBERS, "0001"], "1,001 folders for 1,000 classes: some classes have two"),
        (
            [*NUMBERS[:-1], "0001"],
            r"1,000 folders for 999 classes: some classes have two.* 1 \(999\)",
        ),
        ([*NUMBERS, "n01440764"], r"1,000 classes \(n01440764\). Expected folders such as 0"),
        ([*NUMBERS, "1000"], r"1,000 classes \(1000\). Expected folders such as 0"),
    ],
)
def test_v2(tmp_path, check, folders, problem):
    put(tmp_path / "imagenetv2-topimages", folders)
    assert re.search(
        f"imagenetv2-topimages wrong .*{problem}.* get ", check("imagenetv2-topimages")
    )


def test_val(tmp_path, check):
    put(tmp_path / "imagenet-1k", ["val"])
    assert "val has no class folders: sort the images" in check("imagenet-1k")
    put(tmp_path / "imagenet-1k/val", [*WNIDS[4:], "tench"])
    out = check("imagenet-1k")
    expected = "Expected folders such as n01440764 fix it, or remove it and get it again: get ILSV"
    assert f"val: 1 folder is not among the 1,000 classes (tench). {expected}" in out
    (tmp_path / "imagenet-1k/val/tench").rename(tmp_path / "tench")
    (tmp_path / "imagenet-1k/val" / WNIDS[1]).mkdir()
    (tmp_path / "imagenet-1k/val" / WNIDS[9] / "b.JPEG").touch()
    out = check("imagenet-1k")
    assert "imagenet-1k partial 997 of 1,000 images 996 of 1,000 classes imagenet-1k/val" in out
    some = f"{WNIDS[0]}, {WNIDS[1]} (empty), {WNIDS[2]}, ..."
    assert f" images missing: 3 classes without images: 4 ({some}) fix it, or remove" in out


def test_class_folder_without_an_image_that_can_be_read(tmp_path, check):
    put(tmp_path / "imagenet-a", wnids("imagenet-a"))
    folder = tmp_path / "imagenet-a" / wnids("imagenet-a")[0]
    (folder / "b.heic").touch()
    assert "b.heic. Convert to JPEG or PNG" in check("imagenet-a")
    not_utf8 = (folder / "b.heic").rename(folder / os.fsdecode(b"caf\xe9.JPEG"))
    assert "the file name b'caf\\xe9.JPEG' is not UTF-8" in check("imagenet-a")
    not_utf8.rename(folder / "b.txt")
    check("imagenet-a", status=0)
    (folder / "a.JPEG").unlink()
    assert f"{folder}: the class folder holds no images but b.txt" in check("imagenet-a")


def test_too_many_images(tmp_path, check):
    put(tmp_path / "imagenet-a/imagenet-a", wnids("imagenet-a"))
    (tmp_path / "imagenet-a/imagenet-a" / wnids("imagenet-a")[0] / "b.png").touch()
    out = check("imagenet-a")
    assert "imagenet-a wrong 201 of 200 images 200 of 200 classes imagenet-a/imagenet-a ima" in out
    assert "images too many: 1 fix" in out


def test_another_subset(tmp_path, check):
    put(tmp_path / "imagenet-a", wnids("imagenet-o"))
    put(tmp_path / "imagenet-r", [*wnids("imagenet-r"), "n00000000"])
    out = check("imagenet-a,imagenet-r")
    num_unknown = len({*wnids("imagenet-o")} - {*wnids("imagenet-a")})
    assert re.search(
        rf": {num_unknown} folders are not among .*, \.\.\.\).*; it looks like imagenet-o fix it",
        out,
    )
    assert out.count("it looks like") == 1


def test_corruptions(tmp_path, check):
    put(tmp_path / "imagenet-c", [f"fog/{severity}/{WNIDS[0]}" for severity in (1, 3, 4)])
    put(tmp_path / "imagenet-c/fog/5", ["tench"])
    out = check("imagenet-c")
    assert "imagenet-c wrong 3 of 1,000 images 1 of 100 classes 0 of 2 corruptions" in out
    assert "severities imagenet-c/fog/5: " in out
    assert "imagenet-c/fog/1: images missing: 99" in out
    assert "... and 5 more such missing: snow fix it" in out


def test_tfds(tmp_path, check):
    write_tar(tmp_path / "manual/imagenet-o.tar", inside("imagenet-o", IMAGES))
    prepare(tmp_path, "imagenet_o")
    out = check("imagenet-o", data_dir=tmp_path / "data")
    assert "imagenet-o partial 6 of 200 images - of 200 classes tfds imagenet_o/1.0.0 imag" in out


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[[1", "not valid JSON"),
        ("[[1]]", "1 entries"),
        (json.dumps([[]] * 50_000), "not the published"),
    ],
)
def test_real_labels(tmp_path, check, content, problem):
    put(tmp_path, ["imagenet-1k"])
    (tmp_path / "imagenet-1k/real.json").write_text(content)
    assert re.search(f"real.json wrong .*{problem}.* get real", check("imagenet-1k-reassessed"))


def test_unreadable_folder(tmp_path, check, monkeypatch):
    def refuse(path):
        raise tf.errors.PermissionDeniedError(None, None, "permission denied")

    put(tmp_path, ["imagenet-a"])
    monkeypatch.setattr(tf.io.gfile, "listdir", refuse)
    out = check("imagenet-a")
    assert re.search("imagenet-a error .* permission denied; change the permissions$", out)


def test_byte_order_mark_and_home_directory(tmp_path, check, monkeypatch):
    put(tmp_path, ["imagenet-1k"])
    (tmp_path / "imagenet-1k/real.json").write_text(json.dumps(REAL), encoding="utf-8-sig")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "real.json ok 50,000" in check("imagenet-1k-reassessed", data_dir="~")


def test_bad_arguments(tmp_path, check):
    absent = tmp_path / "absent"
    assert check("all", data_dir=absent) == f"error: no data directory {absent}"
    assert check("imagenet-2").startswith("error: unknown test set 'imagenet-2'")
