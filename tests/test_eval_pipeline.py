"""Evaluation batches: no image is lost, repeated or out of order, and damaged images are named."""

import numpy as np
import pytest

from an_jax.data.eval_pipeline import eval_batches
from an_jax.data.sets.class_index import imagenet_wnids
from an_jax.data.sets.opening import open_image_set
from an_jax.data.sources import ImageList
from an_jax.errors import InputError
from an_jax.zoo import Preprocessing
from tests import fake_archives
from tests.pictures import JPEG, SPOILT, encode, in_memory, noise

WNIDS = imagenet_wnids()
SMALL = Preprocessing(image_size=8, crop_pct=1.0)


@pytest.mark.parametrize("share", [range(0), range(8), range(9), range(3, 20)])
def test_eval_batches(share):
    batches = list(eval_batches(in_memory(20), share, 8, SMALL))
    assert len(batches) == -(-len(share) // 8)
    shapes = {"image": (8, 8, 8, 3), "label": (8,), "filename": (8,), "mask": (8,)}
    assert all({key: rows.shape for key, rows in b.items()} == shapes for b in batches)
    kept = [(b["label"][i], b["filename"][i]) for b in batches for i in np.flatnonzero(b["mask"])]
    assert kept == [(i, b"%d.png" % i) for i in share]
    filled = [b["mask"].tolist() for b in batches]
    assert filled == [sorted(mask, reverse=True) for mask in filled]


@pytest.mark.parametrize(
    ("kind", "position"), [("truncated", 11), ("text", 0), ("text", 11), ("text", 19)]
)
def test_corrupt_image_is_named(tmp_path, kind, position):
    names = [f"{WNIDS[i // 2]}/{i:02d}.JPEG" for i in range(20)]
    for i, name in enumerate(names):
        content = SPOILT[kind] if i == position else JPEG
        fake_archives.write(tmp_path / "imagenet-1k/val" / name, content)
    batches = eval_batches(open_image_set("imagenet-1k", str(tmp_path), True), range(20), 8, SMALL)
    for _ in range(position // 8):
        assert next(batches)["mask"].all()
    path = tmp_path / "imagenet-1k/val" / names[position]
    with pytest.raises(InputError, match=f"^{path} is corrupt or no image"):
        next(batches)


def test_corrupt_image_behind_a_batch_is_named():
    """It is planned together with the last images of the batch."""
    images = in_memory(40)
    encoded = [*images.encoded[:35], SPOILT["text"], *images.encoded[36:]]
    source = ImageList(images.filenames, images.labels, encoded=encoded)
    with pytest.raises(InputError, match=r"^35\.png is corrupt or no image"):
        next(eval_batches(source, range(40), 34, SMALL))


def test_truncated_image_is_named(tmp_path):
    """Even if the crop does not include the missing part."""
    (tmp_path / "0.JPEG").write_bytes(encode(noise(400, 100))[:-2000])
    source = ImageList(["0.JPEG"], np.zeros(1, np.int32), str(tmp_path))
    with pytest.raises(InputError, match=r"0\.JPEG is corrupt or no image"):
        next(eval_batches(source, range(1), 1, Preprocessing(16, 1.0)))


def test_deleted_image_is_named(tmp_path):
    """It is not called corrupt."""
    path = tmp_path / "imagenet-1k" / WNIDS[0] / "a.JPEG"
    fake_archives.write(path, JPEG)
    source = open_image_set("imagenet-1k", str(tmp_path), True)
    path.unlink()
    with pytest.raises(InputError, match=f"^{path} cannot be read: .*No such file"):
        list(eval_batches(source, range(1), 8, SMALL))
