"""Test sets prepared by tensorflow-datasets: its names, versions and features, with our images."""

import io

import numpy as np
import pytest
import tensorflow_datasets as tfds

from an_jax.data.sets.class_index import imagenet_wnids, subset
from an_jax.data.sets.opening import open_image_set
from an_jax.data.sets.real_labels import read_real_labels
from an_jax.data.sets.train_sets import open_train_set
from an_jax.errors import InputError
from tests.fake_archives import frames, jpeg, mp4, write
from tests.fake_tfds import prepare

WNIDS = imagenet_wnids()
LABEL = tfds.features.ClassLabel(names=WNIDS)
IMAGE = {"image": tfds.features.Image(encoding_format="jpeg"), "file_name": tfds.features.Text()}


def read(source):
    examples = source.read(range(len(source))).as_numpy_iterator()
    return {e["filename"].decode(): (int(e["label"]), e["image"]) for e in examples}


@pytest.mark.parametrize(
    ("image_set", "name", "version", "config", "labels"),
    [
        ("imagenet-a", "imagenet_a", "0.1.0", None, subset("imagenet-a")[::40]),
        ("imagenet-r", "imagenet_r", "0.2.0", None, subset("imagenet-r")[::40]),
        ("imagenet-r", "imagenet_r", "0.1.0", None, subset("imagenet-r")[::40]),  # an older one
        ("imagenetv2-topimages", "imagenet_v2", "2.0.0", "topimages", (999, 10, 0)),
        ("imagenet-sketch", "imagenet_sketch", "1.0.0", None, (0, 999, 5)),
        *(
            (f"imagenetv2-{ours}", "imagenet_v2", "3.0.0", theirs, (999, 10, 0))
            for ours, theirs in (
                ("matched-frequency", "matched-frequency"),
                ("threshold0.7", "threshold-0.7"),
                ("topimages", "topimages"),
            )
        ),
    ],
)
def test_labels_and_bytes(tmp_path, image_set, name, version, config, labels):
    examples = [
        {"image": io.BytesIO(jpeg(i)), "label": label, "file_name": f"{i}.JPEG"}
        for i, label in enumerate(labels)
    ]
    prepare(tmp_path, name, version, "test", {**IMAGE, "label": LABEL}, examples, config)
    source = open_image_set(image_set, str(tmp_path), True)
    expected = {f"{i}.JPEG": (label, jpeg(i)) for i, label in enumerate(labels)}
    assert read(source) == expected


def test_real_labels(tmp_path):
    labels = {1: [], 2: [970, 795], 50_000: [5]}
    features = {
        **IMAGE,
        "original_label": LABEL,
        "real_label": tfds.features.Sequence(LABEL),
    }
    examples = [
        {
            "image": io.BytesIO(jpeg(0)),
            "original_label": 0,
            "real_label": real,
            "file_name": f"ILSVRC2012_val_{number:08d}.JPEG",
        }
        for number, real in labels.items()
    ]
    prepare(tmp_path, "imagenet2012_real", "1.0.0", "validation", features, examples)
    found = read_real_labels(str(tmp_path))
    assert len(found) == 50_000
    assert {i + 1: found[i] for i in (0, 1, 49_999)} == labels
    assert sum(map(len, found)) == 3


def test_videos(tmp_path):
    features = {
        "video": tfds.features.Tensor(shape=(), dtype=np.object_),
        "label": LABEL,
        "file_name": tfds.features.Text(),
    }
    examples = [
        {"video": mp4(i, 31), "label": label, "file_name": f"{i}.mp4"}
        for i, label in enumerate((3, 500))
    ]
    prepare(tmp_path, "imagenet_p", "1.0.0", "test", features, examples, "snow")
    source = open_image_set("imagenet-p/snow", str(tmp_path), True)
    found = list(source.read(range(30, 33)).as_numpy_iterator())
    first, second = (0, 1) if found[0]["label"] == 3 else (1, 0)  # tfds shuffles by a hash
    expected = [f"{first}.mp4#30", f"{second}.mp4#0", f"{second}.mp4#1"]
    assert [e["filename"].decode() for e in found] == expected
    assert [e["label"] for e in found] == [(3, 500)[i] for i in (first, second, second)]
    assert np.abs(np.float32(found[1]["image"]) - frames(second, 1)[0]).mean() < 12


def test_the_newest_supported_version_is_read(tmp_path):
    for i, version in enumerate(("4.0.0", "5.0.0", "5.1.0")):
        examples = [{"image": io.BytesIO(jpeg(i)), "label": i, "file_name": f"{i}.JPEG"}]
        features = {**IMAGE, "label": LABEL}
        prepare(tmp_path, "imagenet2012", version, "validation", features, examples)
        if i:
            source = open_image_set("imagenet-1k", str(tmp_path), True)
            assert read(source) == {f"{i}.JPEG": (i, jpeg(i))}
        else:
            with pytest.raises(InputError, match=r"holds version 4.0.0, but .* 5.1.0, 5.0.0\. "):
                open_image_set("imagenet-1k", str(tmp_path), True)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (None, None),
        ("lost", r"lacks 1 of its files, for example imagenet2012-validation.tfrecord-00001-of"),
        ("spoilt", "imagenet in .* cannot be read: corrupted record"),
    ],
)
def test_validation_images_are_checked_before_training(tmp_path, capsys, damage, message):
    write(tmp_path / "train" / WNIDS[7] / "1.JPEG", jpeg(0))
    examples = [
        {"image": io.BytesIO(jpeg(i)), "label": i, "file_name": f"{i}.JPEG"} for i in range(4)
    ]
    features = {**IMAGE, "label": LABEL}
    prepare(tmp_path, "imagenet2012", "5.1.0", "validation", features, examples, num_shards=2)
    first, last = sorted((tmp_path / "imagenet2012/5.1.0").glob("*.tfrecord*"))
    if damage == "lost":
        last.unlink()
    elif damage == "spoilt":
        first.write_bytes(b"damaged" * 1000)
    if message is None:
        assert len(open_train_set("imagenet", str(tmp_path)).val_source) == 4
        assert "note: 4 of the 50000 validation images" in capsys.readouterr().out
    else:
        with pytest.raises(InputError, match=message):
            open_train_set("imagenet", str(tmp_path))


def test_failed_build(tmp_path):
    (tmp_path / "imagenet_c/fog_3").mkdir(parents=True)
    with pytest.raises(InputError, match=r"imagenet_c/fog_3 is an incomplete data set"):
        open_image_set("imagenet-c/fog/3", str(tmp_path), True)
