"""Where each image set is published, and the commands that put its archives into a data directory.

Every address is a documented public page. The commands run as printed once `ARCHIVES` is replaced
by the folder of the downloaded archives.
"""

import dataclasses
import shlex

_NATURAL = "https://github.com/hendrycks/natural-adv-examples"
_V2 = "https://huggingface.co/datasets/vaishaal/ImageNetV2"


@dataclasses.dataclass(frozen=True)
class Download:
    """How to get an image set.

    Attributes:
        archives: names of the files to download.
        page: the page that offers them.
        commands: alternatives; {data} stands for the data directory.
    """

    archives: str
    page: str
    commands: tuple[str, ...]


def _build(name: str) -> str:
    return f"python -m an_jax.data.builders {name} --manual_dir=ARCHIVES --data_dir={{data}}"


def _unpack_each(folder: str, names: str) -> str:
    unpack = f"tar -xf ARCHIVES/$name.tar -C {{data}}/{folder}"
    return f"mkdir -p {{data}}/{folder} && for name in {names}; do {unpack}; done"


def _v2(name: str, config: str) -> Download:
    archive = f"imagenetv2-{name}.tar.gz"
    unpack = f"tar -xzf ARCHIVES/{archive} -C {{data}}"
    return Download(archive, _V2, (unpack, _build(f"imagenet_v2/{config}")))


def _hendrycks(name: str, page: str) -> Download:
    unpack = f"tar -xf ARCHIVES/{name}.tar -C {{data}}"
    return Download(f"{name}.tar", page, (unpack, _build(name.replace("-", "_"))))


DOWNLOADS: dict[str, Download] = {
    "imagenet-1k": Download(
        "ILSVRC2012_img_val.tar",
        "https://image-net.org/download.php",
        (
            _build("imagenet2012"),
            "mkdir -p {data}/imagenet-1k/val && tar -xf ARCHIVES/ILSVRC2012_img_val.tar -C "
            "{data}/imagenet-1k/val  # and sort the images into imagenet-1k/val/<wnid>/, or put "
            "Kaggle's LOC_val_solution.csv into imagenet-1k/",
        ),
    ),
    "real.json": Download(
        "real.json",
        "https://github.com/google-research/reassessed-imagenet",
        ("mkdir -p {data}/imagenet-1k && cp ARCHIVES/real.json {data}/imagenet-1k/",),
    ),
    "imagenetv2-matched-frequency": _v2("matched-frequency", "matched-frequency"),
    "imagenetv2-threshold0.7": _v2("threshold0.7", "threshold-0.7"),
    "imagenetv2-topimages": _v2("top-images", "topimages"),
    "imagenet-sketch": Download(
        "ImageNet-Sketch.zip",
        "https://github.com/HaohanWang/ImageNet-Sketch",
        (
            "unzip -q ARCHIVES/ImageNet-Sketch.zip -d {data}/imagenet-sketch",
            _build("imagenet_sketch"),
        ),
    ),
    "imagenet-a": _hendrycks("imagenet-a", _NATURAL),
    "imagenet-o": _hendrycks("imagenet-o", _NATURAL),
    "imagenet-r": _hendrycks("imagenet-r", "https://github.com/hendrycks/imagenet-r"),
    "imagenet-c": Download(
        "noise.tar, blur.tar, weather.tar, digital.tar and extra.tar",
        "https://zenodo.org/records/2235448",
        (
            _unpack_each("imagenet-c", "noise blur weather digital extra")
            + "  # into imagenet-c/<corruption>/<severity>/<wnid>/",
            _build("imagenet_c"),
        ),
    ),
    "imagenet-p": Download(
        "noise.tar, blur.tar, weather.tar and digital.tar (not ImageNet-C's of the same names)",
        "https://zenodo.org/records/3565846",
        (
            _unpack_each("imagenet-p", "noise blur weather digital")
            + "  # into imagenet-p/<perturbation>/<wnid>/*.mp4",
            _build("imagenet_p"),
        ),
    ),
}


def download_instructions(name: str, data_dir: str) -> list[str]:
    """Returns the lines that tell how to get a set into `data_dir`.

    Args:
        name: key of DOWNLOADS; for another name, such as "digits", there are no lines.
        data_dir: data directory, inserted into the commands.
    """
    if name not in DOWNLOADS:
        return []
    download = DOWNLOADS[name]
    data = shlex.quote(data_dir.rstrip("/"))
    first, *alternatives = [command.format(data=data) for command in download.commands]
    return [
        f"get {download.archives} from {download.page} into a folder ARCHIVES, then",
        f"    {first}",
        *(f"or  {command}" for command in alternatives),
    ]
