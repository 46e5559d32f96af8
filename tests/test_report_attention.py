"""Reads the files of `python -m an_jax.attention` for report.html."""

import json

import pytest

from an_jax.errors import InputError
from an_jax.report import attention
from tests.made_up_attention import write_made_up


def test_files_in_order_of_model_and_set(tmp_path):
    paths = write_made_up(tmp_path, datasets=("digits-noise", "digits"))
    (tmp_path / "attention/an/.digits.json.7.tmp").touch()  # of a process that was killed
    found = attention.read_attention(tmp_path)
    names = [(analysis["model"], analysis["dataset"]) for analysis in found]
    datasets = ("digits", "digits-noise")
    assert names == [(model, dataset) for model in ("an", "bn") for dataset in datasets]
    assert found[1] == json.loads(paths[0].read_text())


def test_a_directory_without_files(tmp_path):
    assert attention.read_attention(tmp_path) == []


def test_images_are_left_out_when_the_files_are_large(tmp_path, monkeypatch):
    first, _ = write_made_up(tmp_path, datasets=("a", "b"))[:2]
    monkeypatch.setattr(attention, "MAX_BYTES", first.stat().st_size)
    whole, numbers, *_ = attention.read_attention(tmp_path)
    assert len(whole["images"]) > 3
    assert "images_left_out" not in whole
    assert numbers["images_left_out"]
    assert numbers["images"] == []
    assert len(json.dumps(numbers)) < len(json.dumps(whole)) / 3
    layer, expected = (analysis["layers"][1] for analysis in (numbers, whole))
    assert layer["in_use"] == expected["in_use"]
    assert [c["mean"] for c in layer["components"]] == [c["mean"] for c in expected["components"]]


def remove_a_number(analysis):
    del analysis["layers"][1]["in_use"]


def remove_an_image(analysis):
    del analysis["images"][0]


def link_to_another_site(analysis):
    analysis["images"][0]["thumbnail"] = "https://example.com/x.webp"


def make_a_number_infinite(analysis):
    analysis["layers"][0]["scale"]["mean"] = float("inf")


def make_a_name_a_number(analysis):
    analysis["layers"][0]["name"] = 7


@pytest.mark.parametrize(
    "damage",
    [
        remove_a_number,
        remove_an_image,
        link_to_another_site,
        make_a_number_infinite,
        make_a_name_a_number,
    ],
)
def test_a_damaged_file_is_named(tmp_path, damage):
    path, _ = write_made_up(tmp_path)
    analysis = json.loads(path.read_text())
    damage(analysis)
    path.write_text(json.dumps(analysis))
    with pytest.raises(InputError, match=f"{path} is damaged or of another version .*delete it"):
        attention.read_attention(tmp_path)


@pytest.mark.parametrize("content", [b"{", b"[]", b"null", b"\xff"])
def test_another_file_is_named(tmp_path, content):
    path, _ = write_made_up(tmp_path)
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{path} is damaged"):
        attention.read_attention(tmp_path)


@pytest.mark.slow
def test_files_in_a_bucket(bucket, tmp_path):
    for path in write_made_up(tmp_path):
        copy = bucket.path / path.relative_to(tmp_path)
        copy.write_text(path.read_text())
    found = attention.read_attention(bucket.path)
    assert found == attention.read_attention(tmp_path)
    assert len(found) == 2
