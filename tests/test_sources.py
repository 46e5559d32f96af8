"""Opening image sets: no image is lost, repeated or out of order."""

import dataclasses
import io
import itertools
import shutil
import tarfile

import numpy as np
import pytest

from an_jax.data.eval_pipeline import eval_batches
from an_jax.data.prepared import open_tfds
from an_jax.data.sets.class_index import imagenet_wnids
from an_jax.data.sets.image_sets import IMAGE_SETS, ImageSet
from an_jax.data.sets.opening import open_image_set
from an_jax.data.sets.test_sets import TEST_SETS, expand_names
from an_jax.data.tf_on_cpu import tf
from an_jax.errors import InputError, NotThereError
from an_jax.zoo import Preprocessing
from tests import fake_archives
from tests.pictures import JPEG, encode, noise

WNIDS = imagenet_wnids()
SMALL = Preprocessing(image_size=8, crop_pct=1.0)
V2_FOLDER = "imagenetv2-matched-frequency-format-val"
FOLDERS = ["imagenet-1k/val", "imagenet-1k/Data/CLS-LOC/val", "imagenet-1k/ILSVRC/Data/CLS-LOC/val"]
FOLDERS += ["ILSVRC/Data/CLS-LOC/val", "Data/CLS-LOC/val", "imagenet-1k"]


def put(root, name, content=b""):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(content)


def open_partial(data_dir):
    return open_image_set("imagenet-1k", data_dir and str(data_dir), True)


def read(source, indices=None):
    examples = source.read(range(len(source)) if indices is None else indices)
    return [
        (e["filename"].decode(), int(e["label"]), e["image"]) for e in examples.as_numpy_iterator()
    ]


@pytest.mark.parametrize("folder", FOLDERS)
def test_class_folders(tmp_path, folder):
    files = {
        f"{WNIDS[999]}/z.JPEG": b"1",
        f"{WNIDS[0]}/b.jpg": b"2",
        f"{WNIDS[0]}/B.PNG": b"3",
        f"{WNIDS[0]}/a.jpeg": b"4",
        f"{WNIDS[7]}/x.Jpg": b"5",
        f"{WNIDS[7]}/x.JPEG.part": b"6",
        f"{WNIDS[7]}/readme.txt": b"7",
        f"{WNIDS[7]}/JPEG": b"8",
        f"{WNIDS[7]}/._x.JPEG": b"8",
        f"{WNIDS[7]}/._x.webp": b"8",
        f"{WNIDS[7]}/@eaDir/x.JPEG": b"8",
        ".ipynb_checkpoints/x.JPEG": b"9",
        "__MACOSX/x.JPEG": b"9",
        "README.txt": b"9",
        "wnids.txt": b"9",
    }
    for name, content in files.items():
        put(tmp_path / folder, name, content)
    (tmp_path / folder / WNIDS[8]).mkdir()
    labels = {"B.PNG": 0, "a.jpeg": 0, "b.jpg": 0, "x.Jpg": 7, "z.JPEG": 999}
    expected = [
        (f"{WNIDS[i]}/{name}", i, files[f"{WNIDS[i]}/{name}"]) for name, i in labels.items()
    ]
    source = open_partial(tmp_path)
    assert read(source) == expected
    assert read(source, [4, 0, 0]) == [expected[4], expected[0], expected[0]]
    assert source.labels.dtype == np.int32


@pytest.mark.parametrize("folder", FOLDERS[:-1])
@pytest.mark.parametrize("beside", [False, True])
def test_flat_folder(tmp_path, folder, beside):
    for name in ("val_2.JPEG", "val_1.JPEG", "val_3.JPEG", "notes.txt"):
        put(tmp_path / folder, name, name.encode())
    solution = ["ImageId,PredictionString", f"val_3,{WNIDS[5]} 1 2 3 4 {WNIDS[5]} 5 6 7 8 "]
    solution += [f"val_1,{WNIDS[999]} 0 0 9 9 ", f"val_2,{WNIDS[0]} 0 0 9 9 ", f"val_4,{WNIDS[1]} "]
    where = (tmp_path / folder).parent if beside else tmp_path / folder.split("/")[0]
    # Some editors and spreadsheets write a byte order mark.
    encoding = "utf-8-sig" if beside else "utf-8"
    put(where, "LOC_val_solution.csv", "\n".join(solution).encode(encoding))
    expected = [("val_1.JPEG", 999), ("val_2.JPEG", 0), ("val_3.JPEG", 5)]
    assert read(open_partial(tmp_path)) == [(name, i, name.encode()) for name, i in expected]


def test_solution_beside_the_images(tmp_path):
    """The error in test_flat_folder_without_solution suggests this place."""
    put(tmp_path, "imagenet-1k/val/val_1.JPEG")
    solution = f"ImageId,PredictionString\nval_1,{WNIDS[3]} 1 2 3 4 \n"
    put(tmp_path, "imagenet-1k/val/LOC_val_solution.csv", solution.encode())
    assert read(open_partial(tmp_path)) == [("val_1.JPEG", 3, b"")]


def test_flat_folder_with_unlisted_image(tmp_path):
    put(tmp_path, "imagenet-1k/val/val_1.JPEG")
    put(tmp_path, "imagenet-1k/LOC_val_solution.csv", b"ImageId,PredictionString\n")
    with pytest.raises(InputError, match=r"no class for 1 of the images in .*example val_1\.JPEG"):
        open_partial(tmp_path)


def test_flat_folder_without_solution(tmp_path):
    put(tmp_path, "imagenet-1k/val/val_1.JPEG")
    with pytest.raises(InputError, match=r"no class folders: .*LOC_val_solution\.csv"):
        open_partial(tmp_path)


def test_unknown_folders_are_listed(tmp_path):
    put(tmp_path, f"imagenet-1k/val/{WNIDS[0]}/a.JPEG")
    put(tmp_path, "imagenet-1k/val/tench/a.JPEG")
    with pytest.raises(
        InputError, match=r"1 folder is not among the 1,000 classes \(tench\)\. Expected"
    ):
        open_partial(tmp_path)


def test_nothing_there(tmp_path):
    with pytest.raises(InputError, match="imagenet-1k needs --data_dir"):
        open_partial(None)
    with pytest.raises(InputError, match=f"no data directory {tmp_path / 'absent'}"):
        open_partial(tmp_path / "absent")
    with pytest.raises(InputError, match=f"no imagenet-1k in {tmp_path}"):
        open_partial(tmp_path)
    with pytest.raises(InputError, match="unknown test set 'imagenet-2k'; the nearest is imagenet"):
        expand_names("digits,imagenet-2k")
    (tmp_path / "imagenet-1k" / WNIDS[0]).mkdir(parents=True)
    with pytest.raises(InputError, match=r"imagenet-1k holds no images"):
        open_partial(tmp_path)


def test_every_set_is_found_under_its_own_name():
    """Where the error of an absent set asks for it."""
    on_disk = {name: s.places for name, s in IMAGE_SETS.items() if not s.in_memory}
    assert [name for name, places in on_disk.items() if name not in places] == []


def test_tables_agree_on_the_number_of_images():
    own = {name: t.num_images for name, t in TEST_SETS.items() if t.image_sets == (name,)}
    assert {"imagenet-1k", "imagenet-r", "digits"} <= own.keys()
    assert own == {name: IMAGE_SETS[name].num_images for name in own}


def test_accuracy_of_several_image_sets_is_refused():
    with pytest.raises(ValueError, match="'accuracy' scores one image set"):
        dataclasses.replace(TEST_SETS["imagenet-sketch"], image_sets=("imagenet-1k", "imagenet-a"))


def test_row_of_a_new_set(tmp_path, monkeypatch):
    """One row is enough to find a set of class folders."""
    new_set = ImageSet(num_images=1, places=("imagenet-x",))
    monkeypatch.setitem(IMAGE_SETS, "imagenet-x", new_set)
    with pytest.raises(NotThereError, match=r"no imagenet-x in .* in imagenet-x/$"):
        open_image_set("imagenet-x", str(tmp_path), False)
    put(tmp_path, f"imagenet-x/{WNIDS[999]}/a.JPEG", b"1")
    source = open_image_set("imagenet-x", str(tmp_path), False)
    assert read(source) == [(f"{WNIDS[999]}/a.JPEG", 999, b"1")]


def test_archive_folder_inside_the_set_folder(tmp_path):
    """An archive unpacked in the folder of its set."""
    put(tmp_path, "imagenetv2-topimages/imagenetv2-top-images-format-val/10/a.jpeg", b"1")
    put(tmp_path, f"imagenet-a/imagenet-a/{WNIDS[6]}/a.jpeg", b"2")
    put(tmp_path, "imagenet-a/README.txt")
    for name, label in (("imagenetv2-topimages", 10), ("imagenet-a", 6)):
        source = open_image_set(name, str(tmp_path), True)
        assert source.labels.tolist() == [label]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("imagenetv2-matched-frequency", f"imagenetv2-matched-frequency/{V2_FOLDER}/7"),
        ("imagenetv2-threshold0.7", "imagenetv2-threshold0.7/imagenetv2-threshold0.7-format-val/7"),
        ("imagenetv2-topimages", "imagenetv2-top-images/imagenetv2-top-images-format-val/7"),
        ("imagenetv2-topimages", "imagenetv2-top-images/7"),
        (
            "imagenetv2-topimages",
            "imagenetv2-top-images-format-val/imagenetv2-top-images-format-val/7",
        ),
        ("imagenet-c/fog/3", f"imagenet-c/weather/fog/3/{WNIDS[7]}"),
    ],
)
def test_archive_in_its_own_folder(tmp_path, name, path):
    put(tmp_path, f"{path}/a.jpeg", b"1")
    assert open_image_set(name, str(tmp_path), True).labels.tolist() == [7]


def test_missing_images_are_counted(tmp_path):
    put(tmp_path, f"imagenet-1k/val/{WNIDS[0]}/a.JPEG")
    with pytest.raises(InputError, match=r": 1 of 50,000 images\. Pass --allow_partial"):
        open_image_set("imagenet-1k", str(tmp_path), False)
    assert len(open_partial(tmp_path)) == 1


def test_surplus_images_are_counted(tmp_path, monkeypatch):
    monkeypatch.setitem(IMAGE_SETS, "imagenet-x", ImageSet(num_images=1, places=("imagenet-x",)))
    put(tmp_path, f"imagenet-x/{WNIDS[0]}/a.JPEG")
    put(tmp_path, f"imagenet-x/{WNIDS[0]}/b.JPEG")
    with pytest.raises(InputError, match=r": 2 images, more than the 1 of .* Remove the surplus"):
        open_image_set("imagenet-x", str(tmp_path), False)
    assert len(open_image_set("imagenet-x", str(tmp_path), True)) == 2


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A directory in which tfds prepared imagenet2012 from 40 images; the images by file name."""
    import tensorflow_datasets as tfds

    path = tmp_path_factory.mktemp("tfds")
    files = {f"ILSVRC2012_val_{i:08d}.JPEG": encode(noise(9, 8 + i, i)) for i in range(1, 41)}
    with tarfile.open(path / "ILSVRC2012_img_val.tar", "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    config = tfds.download.DownloadConfig(
        manual_dir=path,
        compute_stats=tfds.download.ComputeStatsMode.SKIP,
        try_download_gcs=False,
        num_shards=2,
    )
    tfds.disable_progress_bar()
    builder = tfds.builder("imagenet2012", data_dir=path)
    builder.download_and_prepare(download_dir=path / "downloads", download_config=config)
    return path, files


def test_tfds(prepared):
    data_dir, files = prepared
    labels = [65, 970, 230, 809, 516, 57, 334, 415, 674, 332]  # of the validation set's first
    source = open_partial(data_dir)
    examples = read(source)
    assert len(source) == 40
    assert {name: content for name, _, content in examples} == files
    assert [label for _, label, _ in sorted(examples)[:10]] == labels
    for cuts in ([0, 40], [0, 1, 18, 22, 39, 40]):
        parts = (read(source, range(*part)) for part in itertools.pairwise(cuts))
        assert list(itertools.chain(*parts)) == examples


def test_tfds_beside_real_labels(prepared, tmp_path):
    """A real.json in imagenet-1k/, a place of class folders, does not hide the prepared images."""
    shutil.copytree(prepared[0] / "imagenet2012", tmp_path / "imagenet2012")
    put(tmp_path, "imagenet-1k/real.json", b"[]")
    assert len(open_partial(f"{tmp_path}/")) == 40
    for name in (".DS_Store", "README.md", f"train/{WNIDS[0]}/a.JPEG", "val/notes.txt"):
        put(tmp_path, f"imagenet-1k/{name}")
        assert len(open_partial(f"{tmp_path}/")) == 40


def test_solution_in_the_data_directory(tmp_path):
    put(tmp_path, "imagenet-1k/val/val_1.JPEG")
    put(tmp_path, "LOC_val_solution.csv", f"ImageId,PredictionString\nval_1,{WNIDS[3]} ".encode())
    assert read(open_partial(f"{tmp_path}/")) == [("val_1.JPEG", 3, b"")]


def test_data_on_another_file_system():
    """ram:// stands for gs://: TensorFlow reads it, but Python's open() does not."""
    for name in ("0/b.JPEG", "0010/a.JPEG", "9/c.JPEG"):
        path = f"ram://data/imagenetv2-topimages/{name}"
        tf.io.gfile.makedirs(path.rpartition("/")[0])
        with tf.io.gfile.GFile(path, "wb") as file:
            file.write(JPEG)
    source = open_image_set("imagenetv2-topimages", "ram://data", True)
    expected = [("0/b.JPEG", 0, JPEG), ("0010/a.JPEG", 10, JPEG), ("9/c.JPEG", 9, JPEG)]
    assert read(source) == expected
    assert next(eval_batches(source, range(3), 4, SMALL))["mask"].sum() == 3


def test_prepared_video_frames_by_position(tmp_path):
    """Any contiguous range of frames, across videos; a video that is too short is named."""
    for i, label in enumerate((4, 7)):
        name = f"imagenet-p/translate/{WNIDS[label]}/{i}.mp4"
        put(tmp_path, name, fake_archives.mp4(i, 41))
    source = open_image_set("imagenet-p/translate", str(tmp_path), True)
    whole = read(source)
    assert [label for _, label, _ in whole] == [4] * 41 + [7] * 41
    assert whole[42][0] == f"{WNIDS[7]}/1.mp4#1"
    for part in (range(3, 5), range(40, 43), range(41, 82), range(82, 82)):
        np.testing.assert_equal(read(source, part), whole[part.start : part.stop])
    put(tmp_path, f"imagenet-p/translate/{WNIDS[7]}/1.mp4", fake_archives.mp4(1, 40))
    batches = eval_batches(source, range(82), 41, SMALL)
    with pytest.raises(InputError, match=r"1\.mp4 is corrupt or no video of 41 frames"):
        list(batches)


def test_tfds_empty_range(prepared):
    """The share of a process if there are more processes than images."""
    assert read(open_partial(prepared[0]), range(40, 40)) == []


def test_tfds_without_the_split(prepared):
    with pytest.raises(
        InputError, match=r"imagenet2012 has no split 'test' of version 5.1.0.*Prepare it with"
    ):
        open_tfds("imagenet2012", "test", str(prepared[0]))


def test_flat_files_before_the_class_folders(tmp_path):
    for i in range(100):
        put(tmp_path / "imagenet-1k/val", f"a{i}.JPEG")
    put(tmp_path / "imagenet-1k/val", f"{WNIDS[3]}/b.JPEG")
    assert open_partial(tmp_path).filenames == [f"{WNIDS[3]}/b.JPEG"]
