"""Small copies of all ImageNet test sets, in the layout of their archives."""

import functools
import io
import json
from pathlib import Path

import av
import numpy as np

from an_jax.data.sets.class_index import imagenet_wnids, subset
from an_jax.data.sets.image_sets import CORRUPTIONS, EXTRA_CORRUPTIONS, PERTURBATIONS
from tests import pictures

# Labels of the validation images: some in each subset of 200 classes, some in none.
VAL_LABELS = [999, 500, 6, 11, 6, 1, 6, 51, 70, 6, 13, 1, 22, 500, 4, 107, 107, 15, 1, 988]
REAL_LABELS = [[], [500], [7, 6], [], [6], [1, 2], [3], [2, 52, 53], [70], [13], [14], [6], [22]]
REAL_LABELS += [[500, 501], [], [107], [6], [15, 107], [1], [988]]
VIDEOS = 2
# AlexNet's scores on imagenet-p, the same for each perturbation.
ALEXNET_P = {"flip_probability": 0.5, "top5_distance": 4.0}


@functools.cache
def picture(number: int, side: int | None = None) -> np.ndarray:
    """Returns the number-th crop of a photograph, uint8; square if `side` is given."""
    rng = np.random.default_rng(number)
    top, left, height, width = rng.integers(0, 200, 4)
    height, width = (side, side) if side else (30 + height, 30 + width)
    return pictures.photographs()[number % 2][top:, left:][:height, :width]


def jpeg(number: int, side: int | None = None) -> bytes:
    """Encodes that crop; quality and chroma subsampling vary with the number."""
    options = {"quality": (75, 85, 95)[number % 3], "subsampling": (0, 2)[number % 2]}
    return pictures.encode(picture(number, side), **options)


def frames(number: int, count: int) -> list[np.ndarray]:
    """Frames of a moving crop, uint8 [64, 64, 3] each."""
    whole = picture(number, 128)
    return [np.ascontiguousarray(whole[i : i + 64, i : i + 64]) for i in range(count)]


def mp4(number: int, count: int) -> bytes:
    """Encodes these frames as H.264."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for image in frames(number, count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def write(path: Path, content: bytes) -> None:
    """Writes a file; creates its directory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def make_all(data_dir: Path, heavy: bool = True) -> None:
    """Writes every set to a data directory; ImageNet-C and -P only if `heavy`."""
    wnids = imagenet_wnids()
    for i, label in enumerate(VAL_LABELS):
        name = f"{wnids[label]}/ILSVRC2012_val_{i + 1:08d}.JPEG"
        write(data_dir / "imagenet-1k/val" / name, jpeg(i))
    real = REAL_LABELS + [[]] * (50_000 - len(REAL_LABELS))
    write(data_dir / "imagenet-1k/real.json", json.dumps(real).encode())
    for j, name in enumerate(("matched-frequency", "threshold0.7", "topimages")):
        for i, label in enumerate((1, 6, 11, 51, 500, 999)):
            write(data_dir / f"imagenetv2-{name}/{label}/{i}.jpeg", jpeg(50 + 10 * j + i))
    for i, label in enumerate((1, 6, 500, 999, 999)):
        write(data_dir / f"imagenet-sketch/sketch/{wnids[label]}/sketch_{i}.JPEG", jpeg(80 + i))
    for j, name in enumerate(("imagenet-a", "imagenet-o", "imagenet-r")):
        write(data_dir / name / "README.txt", b"read me")
        for i, label in enumerate(label for label in VAL_LABELS if label in subset(name)):
            write(data_dir / f"{name}/{wnids[label]}/0.1_{i}.jpg", jpeg(90 + 10 * j + i))
    if not heavy:
        return
    alexnet = {key: dict.fromkeys(PERTURBATIONS, value) for key, value in ALEXNET_P.items()}
    write(data_dir / "imagenet-p/alexnet.json", json.dumps(alexnet).encode())
    number = 200
    for corruption in CORRUPTIONS + EXTRA_CORRUPTIONS:
        for severity in range(1, 6):
            place = data_dir / f"imagenet-c/{corruption}/{severity}"
            for label in (6, VAL_LABELS[number % len(VAL_LABELS)]):
                name = f"{wnids[label]}/ILSVRC2012_val_{number:08d}.JPEG"
                write(place / name, jpeg(number, 64))
                number += 1
    for j, perturbation in enumerate(PERTURBATIONS):
        count = 41 if perturbation == "translate" else 31
        for i in range(VIDEOS):
            name = f"{wnids[5 + 3 * i]}/ILSVRC2012_val_{i + 1:08d}.mp4"
            write(data_dir / "imagenet-p" / perturbation / name, mp4(10 * j + i, count))
