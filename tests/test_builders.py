"""The tfds builders, on small archives laid out as the official ones."""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import tensorflow_datasets as tfds
from etils import epath

from an_jax.data.builders import class_folders
from an_jax.data.prepared import open_tfds
from an_jax.data.sets.class_index import imagenet_wnids
from an_jax.errors import InputError
from tests.pictures import encode, noise

ROOT = Path(__file__).parents[1]
WNIDS = imagenet_wnids()
CLASSES = [WNIDS[i] for i in (0, 7, 999)]
IMAGES = {
    f"{wnid}/ILSVRC2012_val_{i:08d}.JPEG": encode(noise(9, 8 + i, seed=i))
    for i, wnid in enumerate([*CLASSES, *CLASSES])
}
VIDEOS = {
    name.replace("JPEG", "mp4"): b"\0 ftyp \xff" + image + b"\0" for name, image in IMAGES.items()
}


def write_tar(path, files, mode="w"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def inside(folder, files):
    return {f"{folder}/{name}": content for name, content in files.items()}


def builder_class(name):
    """Imports a builder as `tfds build` does, without registering it."""
    module = f"an_jax.data.builders.{name}.{name}_dataset_builder"
    return tfds.core.community.builder_cls_from_module(module)


def prepare(tmp_path, name, config=None):
    """Prepares a data set from the archives in tmp_path/manual; returns its builder."""
    builder = builder_class(name)(data_dir=tmp_path / "data", config=config)
    tfds.disable_progress_bar()
    builder.download_and_prepare(
        download_dir=tmp_path / "downloads",
        download_config=tfds.download.DownloadConfig(
            manual_dir=tmp_path / "manual", try_download_gcs=False
        ),
    )
    assert builder.info.features["label"].names == list(WNIDS)
    assert builder.info.description
    assert builder.info.citation
    return builder


def read(builder):
    """File name -> (label, content)."""
    kind = builder.info.supervised_keys[0]
    raw = {"image": tfds.decode.SkipDecoding()} if kind == "image" else None
    examples = list(builder.as_dataset(split="test", decoders=raw).as_numpy_iterator())
    assert len(examples) == builder.info.splits["test"].num_examples
    return {e["file_name"].decode(): (int(e["label"]), e[kind]) for e in examples}


def labelled(files):
    return {name: (WNIDS.index(name.split("/")[0]), content) for name, content in files.items()}


def test_imagenet_o(tmp_path):
    """Runs the command as a user does, with the builder's folder as for `tfds build`."""
    files = {"imagenet-o/README.txt": b"text", "imagenet-o/n00000000/README.txt": b"text"}
    files |= {f"imagenet-o/{WNIDS[0]}/._a.JPEG": b"", f"../imagenet-o/{WNIDS[0]}/a.JPEG": b""}
    write_tar(tmp_path / "manual/imagenet-o.tar", files | inside("imagenet-o", IMAGES))
    command = [sys.executable, "-m", "an_jax.data.builders", "an_jax/data/builders/imagenet_o"]
    command += ["--manual_dir=~/manual", "--data_dir=~/data"]
    home = os.environ | {"HOME": str(tmp_path)}
    result = subprocess.run(command, cwd=ROOT, env=home, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    source = open_tfds("imagenet_o", "test", tmp_path / "data")
    examples = source.read(range(len(source))).as_numpy_iterator()
    read_back = {e["filename"].decode(): (int(e["label"]), e["image"]) for e in examples}
    assert read_back == labelled(IMAGES)
    assert len(source) == len(IMAGES)
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == ["data", "manual"]


@pytest.mark.parametrize("above", ["", "noise/"])
def test_imagenet_c(tmp_path, above):
    files = inside(f"{above}shot_noise/2", IMAGES) | {f"{above}shot_noise/README.txt": b"text"}
    for other in ("shot_noise/1", "gaussian_noise/2", "shot_noise/2/2"):
        files |= {f"{above}{other}/{WNIDS[1]}/{i}.JPEG": b"other" for i in range(3)}
    files |= inside(f"__MACOSX/{above}shot_noise/2", {f"{WNIDS[1]}/a.JPEG": b"other"})
    write_tar(tmp_path / "manual/noise.tar", files)
    builder = prepare(tmp_path, "imagenet_c", "shot_noise_2")
    opened = open_tfds("imagenet_c/shot_noise_2", "test", tmp_path / "data").builder
    assert read(builder) == read(opened) == labelled(IMAGES)


def test_configs():
    corruptions = {config.name for config in builder_class("imagenet_c").BUILDER_CONFIGS}
    assert len(corruptions) == 95
    assert {"gaussian_noise_1", "jpeg_compression_5", "saturate_3"} < corruptions
    assert len(builder_class("imagenet_p").BUILDER_CONFIGS) == 14


@pytest.mark.parametrize("name", ["tilt.tar", "tilt.tar.gz", "digital.tar", "tilt"])
def test_imagenet_p(tmp_path, name):
    files = inside("tilt", VIDEOS) | {f"tilt/{WNIDS[0]}/._a.mp4": b"", "tilt/a.mp4": b""}
    if name == "tilt":
        for path, content in files.items():
            (tmp_path / "manual" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "manual" / path).write_bytes(content)
    else:
        files |= {f"tilt_2/{WNIDS[0]}/a.mp4": b"other"}
        write_tar(tmp_path / "manual" / name, files, "w:gz" if name.endswith("gz") else "w")
    assert read(prepare(tmp_path, "imagenet_p", "tilt")) == labelled(VIDEOS)


def test_missing_archive(tmp_path):
    write_tar(tmp_path / "manual/other.tar", {})
    with pytest.raises(InputError, match=r"no imagenet-o\.tar in .*hendrycks/natural-adv-examples"):
        prepare(tmp_path, "imagenet_o")
    with pytest.raises(InputError, match=r"no weather\.tar in .*zenodo\.org/records/2235448"):
        prepare(tmp_path, "imagenet_c", "fog_3")
    with pytest.raises(InputError, match=r"no snow or snow\.tar or .*zenodo\.org/records/3565846"):
        prepare(tmp_path, "imagenet_p", "snow")


def test_unknown_class(tmp_path):
    files = inside("fog/3", IMAGES) | {"fog/3/tench/a.JPEG": b"image"}
    write_tar(tmp_path / "manual/weather.tar", files)
    with pytest.raises(InputError, match=r"fog/3/tench/a\.JPEG is none of ImageNet's 1000"):
        prepare(tmp_path, "imagenet_c", "fog_3")


def test_wrong_archive_of_the_same_name(tmp_path):
    """ImageNet-C and ImageNet-P both have a weather.tar."""
    write_tar(tmp_path / "manual/weather.tar", inside("snow", VIDEOS))
    with pytest.raises(InputError, match=r"weather\.tar has no images in snow/3/<wnid>/"):
        prepare(tmp_path, "imagenet_c", "snow_3")
    write_tar(tmp_path / "manual/weather.tar", inside("snow/3", IMAGES))
    with pytest.raises(InputError, match=r"weather\.tar has no videos in snow/<wnid>/"):
        prepare(tmp_path, "imagenet_p", "snow")


def test_files_of_a_folder(tmp_path):
    """Directories inside class folders, and files beside them, are no images."""
    root = epath.Path(tmp_path / "archive[1]")
    for name in ("b/2.JPEG", "a/1.JPEG", "a/more/3.JPEG", "README"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    files = {name: file.read() for name, file in class_folders._read_folder(root)}
    assert files == {"archive[1]/a/1.JPEG": b"a/1.JPEG", "archive[1]/b/2.JPEG": b"b/2.JPEG"}
