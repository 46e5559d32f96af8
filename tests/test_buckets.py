"""Buckets: the check of a bucket, data and converted checkpoints in it, under faults."""

import dataclasses
import io
import json
import sys
import time

import google.cloud
import jax.export
import numpy as np
import pytest
import tensorflow_datasets as tfds

import an_jax
from an_jax import buckets, export, functional
from an_jax.buckets import check_bucket
from an_jax.data.folders import check_data_directory
from an_jax.data.sets.class_index import imagenet_wnids
from an_jax.data.sets.opening import open_image_set
from an_jax.data.sets.train_sets import open_train_set
from an_jax.data.tf_on_cpu import explain, tf
from an_jax.data.train_pipeline import Augmentation, train_batches
from an_jax.errors import InputError, one_line
from an_jax.zoo import Preprocessing
from convert.__main__ import main as convert
from evaluate import main as evaluate
from tests import fake_archives, small_model
from tests.fake_gcs import CUT, FOREVER
from tests.fake_tfds import prepare


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ((401, 1), "no access to gs://bucket-"),
        ((403, 1), "no permission to use gs://bucket-.* needs storage.buckets.get"),
        ((404, 1), "there is no bucket gs://bucket-.* `gcloud storage buckets create"),
        ((503, FOREVER), "gs://bucket-.* does not answer: .*try again later"),
        ((CUT, FOREVER), "gs://bucket-.* does not answer: .*try again later"),
        ((429, 1), ""),
        ((503, 1), ""),
        ((CUT, 1), ""),
    ],
)
def test_the_bucket_is_checked(bucket, monkeypatch, fault, message):
    """Each fault is a line within a stated time, or is overcome."""
    monkeypatch.setattr(buckets, "TIMEOUT", 2)
    bucket.fail("^GET /storage/v1/b/bucket-", *fault)
    began = time.monotonic()
    if message:
        with pytest.raises(InputError, match=f"^{message}"):
            check_bucket(bucket.path / "run")
    else:
        check_bucket(bucket.path / "run")
    assert time.monotonic() - began < 4


def test_a_bucket_is_slow_or_has_no_name(bucket, monkeypatch):
    with pytest.raises(InputError, match="gs:// begins with no name of a bucket"):
        check_bucket("gs://")
    bucket.delay(0.4)
    check_bucket(bucket.path)
    monkeypatch.setattr(buckets, "TIMEOUT", 0.6)
    with pytest.raises(InputError, match="does not answer"):
        check_bucket(bucket.path)


def test_what_buckets_need_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    with pytest.raises(InputError, match=r"no access to gs://b: .*application-default login"):
        check_bucket("gs://b/run")
    monkeypatch.delattr(google.cloud, "storage")
    monkeypatch.setitem(sys.modules, "google.cloud.storage", None)
    with pytest.raises(InputError, match=r"gs://b/run: a package .* `pip install -e '\.\[gcs\]'`"):
        check_bucket("gs://b/run")
    check_bucket(tmp_path)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ((403, 1), "cannot be read: .*403"),
        ((404, FOREVER), "no data directory gs://bucket-"),
        ((503, 2), ""),
        ((429, 2), ""),
        ((CUT, 2), ""),
    ],
)
def test_the_data_directory_is_checked(bucket, fault, message):
    (bucket.path / "data/x").write_text("")
    bucket.fail("data", *fault)
    if message:
        with pytest.raises(InputError, match=message):
            check_data_directory(str(bucket.path / "data"))
    else:
        check_data_directory(str(bucket.path / "data"))


def upload(local, destination):
    for path in local.rglob("*"):
        if path.is_file():
            target = destination / path.relative_to(local)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())


def batches_of(data_dir):
    """An epoch of batches of 4 images."""
    return list(
        train_batches(
            open_train_set("folder", str(data_dir)).source,
            np.arange(4),
            slice(0, 4),
            Preprocessing(image_size=8, crop_pct=1.0),
            Augmentation((0.3, 1.0), True),
            seed=0,
            epoch=0,
            first_step=0,
        )
    )


def test_images_are_read_from_class_folders(bucket, tmp_path):
    """They are those of the local folders, although some requests fail."""
    for i in range(6):
        for part in ("train", "val"):
            fake_archives.write(tmp_path / f"{part}/{'ab'[i % 2]}/{i}.jpg", fake_archives.jpeg(i))
    upload(tmp_path, bucket.path / "data")
    bucket.fail("jpg", 503, 2)
    bucket.fail("jpg", CUT, 2)
    for batch, expected in zip(batches_of(bucket.path / "data"), batches_of(tmp_path), strict=True):
        np.testing.assert_equal(vars(batch), vars(expected))
    bucket.fail("5.jpg", 403)
    with pytest.raises(InputError, match=r"cannot be read: .*403"):
        batches_of(bucket.path / "data")


def test_images_are_read_from_tfds(bucket, tmp_path):
    features = {
        "image": tfds.features.Image(encoding_format="jpeg"),
        "file_name": tfds.features.Text(),
        "label": tfds.features.ClassLabel(num_classes=1000),
    }
    examples = [
        {"image": io.BytesIO(fake_archives.jpeg(i)), "label": i, "file_name": f"{i}.JPEG"}
        for i in range(3)
    ]
    prepare(tmp_path, "imagenet2012", "5.1.0", "validation", features, examples)
    upload(tmp_path, bucket.path / "data")
    read = [
        list(open_image_set("imagenet-1k", str(data_dir), True).read(range(3)))
        for data_dir in (tmp_path, bucket.path / "data")
    ]
    assert [int(example["label"]) for example in read[0]] == [int(e["label"]) for e in read[1]]
    assert [e["image"].numpy() for e in read[0]] == [e["image"].numpy() for e in read[1]]


def test_conversion_in_both_directions(bucket, capsys):
    """A checkpoint whose copy to the bucket was interrupted is none."""
    source, pth, back = (str(bucket.path / name) for name in ("small", "small.pth", "models/back"))
    small_model.save(source)
    assert convert([source, pth, "--to-torch"]) == 0
    bucket.fail("PUT.*model.json|POST.*model.json", 403)
    assert convert([pth, back]) == 1
    assert f"error: cannot write {back}: " in capsys.readouterr().err
    with pytest.raises(InputError, match=f"{back} is not a checkpoint"):
        an_jax.load_model(back)
    bucket.heal()
    assert convert([str(bucket.path), f"{back}2"]) == 0  # every file in the bucket
    paths = (source, f"{back}2/small")
    weights = [functional.split(an_jax.load_model(path)).params for path in paths]
    assert jax.tree.all(jax.tree.map(np.array_equal, *weights))


def test_export_into_a_bucket(bucket, monkeypatch):
    program = jax.export.export(jax.jit(lambda x: 2 * x))(np.float32([1, 2]))
    monkeypatch.setattr(export, "export_model", lambda checkpoint, kind: program)
    output = bucket.path / "programs/small.stablehlo"
    for _ in range(2):  # the second one replaces the first
        assert export.main(["checkpoint", str(output)]) == 0
    read = jax.export.deserialize(bytearray(output.read_bytes()))
    np.testing.assert_array_equal(read.call(np.float32([1, 2])), [2, 4])


def test_evaluation_from_a_bucket_into_it(bucket, capsys):
    """A second command adds to the results of the first, a third reads saved predictions only."""
    card = dataclasses.replace(small_model.CARD, num_classes=10)
    small_model.save(bucket.path / "models/small", card)
    given = ["--checkpoint", f"{bucket.path}/models", "--batch_size=60", "--save_predictions"]
    for datasets in ("digits-blur", "digits", "digits,digits-blur"):
        capsys.readouterr()
        assert evaluate([*given, f"--output_dir={bucket.path}/out", f"--datasets={datasets}"]) == 0
    assert "small on" not in capsys.readouterr().err
    rows = json.loads((bucket.path / "out/results.json").read_text())
    assert [(row["dataset"], row["n"]) for row in rows] == [("digits-blur", 360), ("digits", 360)]
    names = {path.name for path in (bucket.path / "out").iterdir()}
    assert {"results.md", "results-digits.csv", "shifted_accuracy.png", "predictions"} < names
    assert (bucket.path / "out/predictions/small/digits.csv").exists()
    assert (bucket.path / "out/thumbnails/digits.json").exists()
    assert (
        '"errors":[{"name":"digits-blur","images":360'
        in (bucket.path / "out/report.html").read_text()
    )
    name, _, key = str(bucket.path / "out/report.html").removeprefix("gs://").partition("/")
    blob = google.cloud.storage.Client().bucket(name).get_blob(key)
    assert blob.content_type == "text/html; charset=utf-8"  # otherwise browsers download it
    assert evaluate([*given, "--output_dir=gs://none/out", "--datasets=digits"]) == 1
    assert "error: there is no bucket gs://none" in capsys.readouterr().err


@pytest.mark.slow
def test_an_evaluation_is_interrupted_and_goes_on(bucket, capsys):
    """Permission is withdrawn after the first set: one line. Its predictions are not lost."""
    card = dataclasses.replace(small_model.CARD, num_classes=10)
    small_model.save(bucket.path / "small", card)
    given = ["--checkpoint", f"{bucket.path}/small", f"--output_dir={bucket.path}/out"]
    given += ["--datasets=digits,digits-blur", "--batch_size=60"]
    bucket.fail("POST.*digits-blur", 403)
    assert evaluate(given) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: cannot write ")
    assert "403" in error
    bucket.heal()
    bucket.fail("POST|PUT", 503, 2)
    bucket.fail("POST|PUT", CUT, 2)
    assert evaluate(given) == 0
    bars = capsys.readouterr().err
    assert "small on digits-blur:" in bars
    assert "small on digits:" not in bars
    rows = json.loads((bucket.path / "out/results.json").read_text())
    assert [row["dataset"] for row in rows] == ["digits", "digits-blur"]


def test_the_page_of_a_server_is_not_quoted():
    page = '{\n  "error": {\n    "code": 403,\n    "message": "a@b: no access.",\n "x": "\'"}\n}\n'
    text = f"HTTP response code 403 with body '{page}'\n\t when reading gs://b/x"
    error = tf.errors.PermissionDeniedError(None, None, text)
    expected = "HTTP response code 403 (a@b: no access.) when reading gs://b/x"
    assert one_line(error) == expected
    assert explain(error) == f"{expected}; change the permissions"
    assert one_line(OSError("with body 'none'")) == "with body 'none'"


def test_listing_class_folders_takes_few_requests(bucket):
    """A request lists a thousand files; the number of folders does not count."""
    for wnid in imagenet_wnids()[:40]:
        for i in range(2):
            (bucket.path / f"data/imagenet-1k/val/{wnid}/{i}.JPEG").write_bytes(b"image")
    before = len(bucket.requests())
    source = open_image_set("imagenet-1k", str(bucket.path / "data"), allow_partial=True)
    assert len(bucket.requests()) - before < 25
    assert source.filenames[:3] == ["n01440764/0.JPEG", "n01440764/1.JPEG", "n01443537/0.JPEG"]
    assert len(source) == 80
