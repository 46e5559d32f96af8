"""Training batches: each image once per epoch, a function of (seed, epoch, step)."""

import collections
import dataclasses
import functools
import itertools
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from an_jax.data.eval_pipeline import eval_batches
from an_jax.data.prepared import open_tfds
from an_jax.data.sets.class_index import imagenet_wnids
from an_jax.data.sets.train_sets import open_train_set
from an_jax.data.sources import ImageList, TfdsSplit
from an_jax.data.tf_on_cpu import tf
from an_jax.data.train_pipeline import Augmentation, steps_per_epoch, train_batches
from an_jax.errors import InputError
from an_jax.zoo import Preprocessing
from tests.fake_tfds import prepare
from tests.pictures import JPEG, SPOILT, decode, encode, in_memory, noise

SMALL = Preprocessing(image_size=8, crop_pct=1.0)


def epoch(source, rows=slice(0, 4), seed=0, number=0, first_step=0, **changes):
    batches = train_batches(
        source,
        np.arange(4),
        rows,
        SMALL,
        Augmentation((0.3, 1.0), True, **changes),
        seed=seed,
        epoch=number,
        first_step=first_step,
    )
    return list(batches)


def labels(batches):
    return np.concatenate([batch.labels for batch in batches]).tolist()


def by_label(batches):
    return {i: image for b in batches for i, image in zip(b.labels, b.images, strict=True)}


def assert_equal(actual, expected):
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_equal(vars(a), vars(b))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Ten images in four files, as tfds prepares them."""
    data_dir = tmp_path_factory.mktemp("tfds")
    features = {
        "image": tfds.features.Image(encoding_format="png"),
        "label": tfds.features.ClassLabel(num_classes=1000),
        "file_name": tfds.features.Text(),
    }
    images = in_memory(10)
    examples = [
        {"image": image, "label": int(label), "file_name": name}
        for image, label, name in zip(images.encoded, images.labels, images.filenames, strict=True)
    ]
    prepare(data_dir, "imagenet2012", "5.1.0", "train", features, examples, num_shards=4)
    return open_tfds("imagenet2012", "train", str(data_dir))


def test_imagenet_as_tfds_prepares_it(prepared, tmp_path):
    """With the validation images in class folders beside it, a common layout."""
    shutil.copytree(prepared.builder.data_path.parents[1], tmp_path, dirs_exist_ok=True)
    path = tmp_path / "imagenet-1k/val" / imagenet_wnids()[7] / "ILSVRC2012_val_00000001.JPEG"
    path.parent.mkdir(parents=True)
    path.write_bytes(JPEG)
    train_set = open_train_set("imagenet", str(tmp_path))
    assert sorted(labels(epoch(train_set.source))[:10]) == list(range(10))
    assert (len(train_set.val_source), train_set.num_classes) == (1, 1000)
    assert train_set.real_labels is None


@pytest.fixture(params=["list", "tfds"])
def ten(request):
    return in_memory(10) if request.param == "list" else request.getfixturevalue("prepared")


@pytest.mark.parametrize("n", [1, 3, 4, 10])
def test_each_image_once(n):
    batches = epoch(in_memory(n))
    assert len(batches) == steps_per_epoch(n, 4)
    order = labels(batches)
    assert sorted(order[:n]) == list(range(n))
    assert order[n:] == (order[:n] * 4)[: -n % 4]
    assert all(batch.images.shape == (4, 8, 8, 3) and not batch.skipped for batch in batches)


def test_each_image_of_tfds_once(prepared, monkeypatch):
    """Two further images fill up the last batch. No other record is read twice."""
    num_read, read = itertools.count(), TfdsSplit._read

    def count_reads(*args, **options):
        def count(example):
            tf.numpy_function(lambda: next(num_read), [], tf.int64)
            return example

        return read(*args, **options).map(count)

    monkeypatch.setattr(TfdsSplit, "_read", count_reads)
    order = labels(epoch(prepared))
    assert sorted(order[:10]) == list(range(10))
    assert len(set(order[10:])) == 2
    assert next(num_read) == 12


def test_a_process_without_images_of_its_own_reads_others(prepared):
    """With more rows in a batch than images, the share of one row is empty."""
    rows, share = np.arange(16), slice(0, 1)
    examples = prepared.read_epoch(np.random.default_rng(0), rows, share, range(1))
    assert len(list(examples)) == 1


def test_seed_and_epoch_decide(ten):
    first, again, *others = (
        epoch(ten, seed=seed, number=number) for seed, number in [(1, 2), (1, 2), (1, 3), (2, 2)]
    )
    assert_equal(again, first)
    for other in others:
        assert labels(other) != labels(first)
        assert by_label(other).keys() == by_label(first).keys()
        assert not any(
            np.array_equal(image, by_label(first)[i]) for i, image in by_label(other).items()
        )
    # The images that fill up the last batch come a second time, with another crop.
    again = by_label(first[:2])[first[2].labels[2]]
    assert not np.array_equal(first[2].images[2], again)


def test_further_changes_of_images():
    """They come after the crop, and are functions of the image's place in the epoch."""
    source, changes = in_memory(40), {"randaugment_number": 1, "random_erasing": 0.5}
    plain, erased = epoch(source), epoch(source, random_erasing=0.5)
    changed = epoch(source, **changes)
    assert_equal(epoch(source, first_step=7, **changes), changed[7:])
    for batches, fewest, most in ((erased, 10, 30), (changed, 31, 40)):
        assert labels(batches) == labels(plain)
        others = by_label(batches).items()
        num_equal = sum(np.array_equal(image, by_label(plain)[i]) for i, image in others)
        assert fewest <= 40 - num_equal <= most


def test_a_resumed_epoch_has_the_same_batches(ten):
    whole = epoch(ten)
    for first_step in (1, 3):  # 3 is past the last step
        assert_equal(epoch(ten, first_step=first_step), whole[first_step:])


def test_files_of_earlier_steps_are_not_read(tmp_path):
    """Only the files of the last step exist."""
    names = [f"{i}.JPEG" for i in range(8)]
    order = labels(epoch(in_memory(8)))
    for i in order[4:]:
        (tmp_path / names[i]).write_bytes(JPEG)
    source = ImageList(names, np.arange(8, dtype=np.int32), str(tmp_path))
    (batch,) = epoch(source, first_step=1)
    assert batch.labels.tolist() == order[4:]
    assert not batch.skipped


def test_two_processes_split_a_batch():
    source = in_memory(10)
    halves = [epoch(source, rows=rows) for rows in (slice(0, 1), slice(1, 4))]
    for one, three, whole in zip(*halves, epoch(source), strict=True):
        np.testing.assert_array_equal(np.concatenate([one.images, three.images]), whole.images)
        np.testing.assert_array_equal(np.concatenate([one.labels, three.labels]), whole.labels)


def test_two_processes_share_what_tfds_prepared(prepared):
    halves = [set(labels(epoch(prepared, rows=rows))) for rows in (slice(0, 2), slice(2, 4))]
    assert sorted(halves[0] | halves[1]) == list(range(10))
    assert not halves[0] & halves[1]


@functools.cache
def whole_epoch():
    return epoch(in_memory(10))


def spoil(places):
    """Ten images; those at some places in the order of the epoch are corrupt in various ways."""
    good = in_memory(10)
    bad = np.array(labels(whole_epoch()))[places]
    encoded, contents = list(good.encoded), itertools.cycle(SPOILT.values())
    for label in bad:
        encoded[label] = next(contents)
    return ImageList(good.filenames, good.labels, encoded=encoded), set(bad.tolist())


@pytest.mark.parametrize("places", [[0, 3, 4, 5, 9], [2, 7, 8, 9]])
def test_other_images_replace_corrupt_ones(places):
    """At the ends of batches of four, within them and across them."""
    source, bad = spoil(places)
    batches = epoch(source)
    for batch, expected in zip(batches, whole_epoch(), strict=True):
        kept = ~np.isin(expected.labels, list(bad))
        np.testing.assert_array_equal(batch.labels[kept], expected.labels[kept])
        np.testing.assert_array_equal(batch.images[kept], expected.images[kept])
        assert set(batch.labels) <= set(expected.labels[kept])
        assert batch.skipped == [f"{i}.png" for i in expected.labels[~kept]]
    assert_equal(epoch(source, first_step=1), batches[1:])


def test_images_that_pillow_decodes():
    """A batch of images that TensorFlow would decode to other pixels, or not at all, equals a batch
    of PNGs of the pixels that Pillow decodes."""
    planes = [Image.fromarray(noise(40, 30, i)[..., 0]) for i in range(4)]
    encoded = [
        encode(Image.merge("CMYK", planes)),
        encode(2 * np.uint16(noise(30, 30)[..., 0]), "PNG"),
        encode(noise(30, 40), "WEBP"),
        encode(noise(50, 40), "TIFF"),
    ]
    names, labels = ["0", "1", "2", "3"], np.arange(4, dtype=np.int32)
    source, expected = (
        ImageList(names, labels, encoded=contents)
        for contents in (encoded, [encode(decode(content), "PNG") for content in encoded])
    )
    assert_equal(epoch(source), epoch(expected))
    (batch,), (expected_batch,) = (eval_batches(s, range(4), 4, SMALL) for s in (source, expected))
    np.testing.assert_array_equal(batch["image"], expected_batch["image"])


def test_a_damaged_tfds_file_is_an_error(prepared, tmp_path):
    """Skipping it would skip the rest of the file."""
    shutil.copytree(prepared.builder.data_path.parents[1], tmp_path, dirs_exist_ok=True)
    file = max(tmp_path.rglob("*.tfrecord*"), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)
    with pytest.raises(
        InputError, match=r"the training images cannot be read: corrupted record at \d+"
    ):
        epoch(open_tfds("imagenet2012", "train", str(tmp_path)))
    source = open_tfds("imagenet2012", "train", str(tmp_path))
    with pytest.raises(InputError, match=r" of imagenet2012/5.1.0 .*cannot be read: corrupted rec"):
        list(eval_batches(source, range(len(source)), 8, Preprocessing(image_size=8)))


def test_a_missing_file_is_an_error(tmp_path):
    source = ImageList(["a.JPEG"] * 8, np.zeros(8, np.int32), str(tmp_path))
    with pytest.raises(InputError, match=r"cannot be read: .*a\.JPEG; No such file"):
        epoch(source)


def test_a_step_without_any_good_image_is_an_error():
    source, _ = spoil([4, 5, 6, 7])
    with pytest.raises(InputError, match=r"no training image of a step can be decoded, such as \d"):
        epoch(source)


def test_an_epoch_does_not_read_all_names_again():
    """A million names become tensors once, since it takes seconds."""

    class Names(collections.UserList):
        reads = 0

        def __getitem__(self, index):
            Names.reads += 1
            return super().__getitem__(index)

    source = in_memory(12)
    source = dataclasses.replace(source, filenames=Names(source.filenames))
    epoch(source)
    reads = Names.reads
    epoch(source, number=1)
    assert Names.reads == reads >= 12
