"""Where each set of images is published, and what to do with its archives: documented pages only.

The commands can be run as they stand where `ARCHIVES` is replaced by the archives' folder.
"""

import shlex

_NATURAL = "https://github.com/hendrycks/natural-adv-examples"
_V2 = "https://huggingface.co/datasets/vaishaal/ImageNetV2"


def _build(name: str) -> str:
    return f"python -m an_jax.data.builders {name} --manual_dir=ARCHIVES --data_dir={{data}}"


def _unpack_each(folder: str, names: str) -> str:
    unpack = f"tar -xf ARCHIVES/$name.tar -C {{data}}/{folder}"
    return f"mkdir -p {{data}}/{folder} && for name in {names}; do {unpack}; done"


def _v2(name: str, config: str) -> tuple[str, ...]:
    archive = f"imagenetv2-{name}.tar.gz"
    return archive, _V2, f"tar -xzf ARCHIVES/{archive} -C {{data}}", _build(f"imagenet_v2/{config}")


def _hendrycks(name: str, page: str) -> tuple[str, ...]:
    prepare = _build(name.replace("-", "_"))
    return f"{name}.tar", page, f"tar -xf ARCHIVES/{name}.tar -C {{data}}", prepare


# Image set -> its archives, their page, and commands of which each will do.
_TABLE: dict[str, tuple[str, ...]] = {
    "imagenet-1k": (
        "ILSVRC2012_img_val.tar",
        "https://image-net.org/download.php",
        _build("imagenet2012"),
        "mkdir -p {data}/imagenet-1k/val && tar -xf ARCHIVES/ILSVRC2012_img_val.tar -C "
        "{data}/imagenet-1k/val  # and sort the images into imagenet-1k/val/<wnid>/, or put "
        "Kaggle's LOC_val_solution.csv into imagenet-1k/",
    ),
    "real.json": (
        "real.json",
        "https://github.com/google-research/reassessed-imagenet",
        "mkdir -p {data}/imagenet-1k && cp ARCHIVES/real.json {data}/imagenet-1k/",
    ),
    "imagenetv2-matched-frequency": _v2("matched-frequency", "matched-frequency"),
    "imagenetv2-threshold0.7": _v2("threshold0.7", "threshold-0.7"),
    "imagenetv2-topimages": _v2("top-images", "topimages"),
    "imagenet-sketch": (
        "ImageNet-Sketch.zip",
        "https://github.com/HaohanWang/ImageNet-Sketch",
        "unzip -q ARCHIVES/ImageNet-Sketch.zip -d {data}/imagenet-sketch",
        _build("imagenet_sketch"),
    ),
    "imagenet-a": _hendrycks("imagenet-a", _NATURAL),
    "imagenet-o": _hendrycks("imagenet-o", _NATURAL),
    "imagenet-r": _hendrycks("imagenet-r", "https://github.com/hendrycks/imagenet-r"),
    "imagenet-c": (
        "noise.tar, blur.tar, weather.tar, digital.tar and extra.tar",
        "https://zenodo.org/records/2235448",
        _unpack_each("imagenet-c", "noise blur weather digital extra")
        + "  # into imagenet-c/<corruption>/<severity>/<wnid>/",
        _build("imagenet_c"),
    ),
    "imagenet-p": (
        "noise.tar, blur.tar, weather.tar and digital.tar (other files than ImageNet-C's)",
        "https://zenodo.org/records/3565846",
        _unpack_each("imagenet-p", "noise blur weather digital")
        + "  # into imagenet-p/<perturbation>/<wnid>/*.mp4",
        _build("imagenet_p"),
    ),
}


def how_to_get(name: str, data_dir: str) -> list[str]:
    """Lines that say where a set is published and how it gets into `data_dir`.

    Args:
        name: of a set of images, "real.json", "imagenet-c" or "imagenet-p"; of another set, which
            needs no getting, there are no lines.
        data_dir: goes into the commands.
    """
    if name not in _TABLE:
        return []
    archives, page, *commands = _TABLE[name]
    data = shlex.quote(data_dir.rstrip("/"))
    lines = [f"get {archives} from {page} into a folder ARCHIVES, then"]
    for command in commands:
        lines.append(("    " if len(lines) == 1 else "or  ") + command.format(data=data))
    return lines
