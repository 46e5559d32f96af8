"""The table of image sets: where each set of images lies, and how many images it has."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

from an_jax.data.sets import digits
from an_jax.data.sets.class_index import imagenet_wnids, subset
from an_jax.data.sources import ImageList

# Archive -> the corruptions in it (Hendrycks & Dietterich, ICLR 2019).
CORRUPTION_ARCHIVES = {
    "noise.tar": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur.tar": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather.tar": ("snow", "frost", "fog", "brightness"),
    "digital.tar": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    "extra.tar": ("speckle_noise", "gaussian_blur", "spatter", "saturate"),
}
# Archive -> the perturbations in it. The last of each is for validation and is not scored.
PERTURBATION_ARCHIVES = {
    "noise.tar": ("gaussian_noise", "shot_noise", "speckle_noise"),
    "blur.tar": ("motion_blur", "zoom_blur", "gaussian_blur"),
    "weather.tar": ("snow", "brightness", "spatter"),
    "digital.tar": ("translate", "rotate", "tilt", "scale", "shear"),
}
EXTRA_CORRUPTIONS = CORRUPTION_ARCHIVES["extra.tar"]
CORRUPTIONS = tuple(
    corruption
    for corruptions in CORRUPTION_ARCHIVES.values()
    for corruption in corruptions
    if corruption not in EXTRA_CORRUPTIONS
)
SEVERITIES = (1, 2, 3, 4, 5)
PERTURBATIONS = tuple(
    perturbation
    for perturbations in PERTURBATION_ARCHIVES.values()
    for perturbation in perturbations[:-1]
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageSet:
    """A row of the table: images that a model is run over once.

    Attributes:
        num_images: number of images, or frames of videos, in the complete set.
        places: directories of class folders, relative to the data directory. The first that holds
            any is read; list a subdirectory before its parent.
        tfds_name: tfds data set to read if none of the places holds any.
        tfds_split: split of that data set.
        labels: the labels that the set has, increasing.
        is_named_by_label: whether a class folder is named by its label, not by its wnid.
        solution: name of a CSV file that labels the images if there are no class folders.
        num_frames: number of frames of each video; None for images.
        num_classes: number of logits of a model for the set.
        is_cropped: whether the images were resized and cropped when the set was made.
        in_memory: returns the images of a set that needs no data directory.
    """

    num_images: int
    places: tuple[str, ...] = ()
    tfds_name: str | None = None
    tfds_split: str = "test"
    labels: Sequence[int] = range(1000)
    is_named_by_label: bool = False
    solution: str | None = None
    num_frames: int | None = None
    num_classes: int = 1000
    is_cropped: bool = False
    in_memory: Callable[[], ImageList] | None = None

    @property
    def label_of(self) -> dict[str, int]:
        """Name of a class folder -> label; numbers may be padded with zeros, as 0000 and 0001."""
        if self.is_named_by_label:
            unpadded = {str(label): label for label in self.labels}
            return unpadded | {f"{label:04d}": label for label in self.labels}
        return {imagenet_wnids()[label]: label for label in self.labels}


def _imagenet_v2(name: str, archive: str, config: str) -> ImageSet:
    folder = f"{archive}-format-val"  # the archive's own folder
    parents = dict.fromkeys((name, archive, folder))
    return ImageSet(
        num_images=10_000,
        places=(*(f"{parent}/{folder}" for parent in parents), *parents),
        tfds_name=f"imagenet_v2/{config}",
        is_named_by_label=True,
    )


def _subset(name: str, num_images: int) -> ImageSet:
    return ImageSet(
        num_images=num_images,
        places=(f"{name}/{name}", name),
        tfds_name=name.replace("-", "_"),
        labels=subset(name),
    )


def _benchmark_places(
    name: str, archives: Mapping[str, Sequence[str]], folder: str
) -> tuple[str, ...]:
    """A folder of ImageNet-C or -P, also inside the folder of its archive."""
    kind = folder.split("/")[0]
    archive = next(archive for archive, kinds in archives.items() if kind in kinds)
    return (f"{name}/{folder}", f"{name}/{archive.removesuffix('.tar')}/{folder}")


def _corrupted(corruption: str, severity: int) -> ImageSet:
    return ImageSet(
        num_images=50_000,
        places=_benchmark_places("imagenet-c", CORRUPTION_ARCHIVES, f"{corruption}/{severity}"),
        tfds_name=f"imagenet_c/{corruption}_{severity}",
        is_cropped=True,
    )


def _perturbed(perturbation: str) -> ImageSet:
    num_frames = 41 if perturbation == "translate" else 31
    return ImageSet(
        num_images=50_000 * num_frames,
        num_frames=num_frames,
        places=_benchmark_places("imagenet-p", PERTURBATION_ARCHIVES, perturbation),
        tfds_name=f"imagenet_p/{perturbation}",
        is_cropped=True,
    )


def _digits(shift: str | None) -> ImageSet:
    return ImageSet(
        num_images=digits.NUM_TEST,
        labels=range(10),
        is_named_by_label=True,
        num_classes=10,
        in_memory=functools.partial(digits.open_digits, "test", shift),
    )


IMAGE_SETS: dict[str, ImageSet] = {
    "imagenet-1k": ImageSet(
        num_images=50_000,
        places=(
            "imagenet-1k/val",
            "imagenet-1k/Data/CLS-LOC/val",
            "imagenet-1k/ILSVRC/Data/CLS-LOC/val",
            "ILSVRC/Data/CLS-LOC/val",
            "Data/CLS-LOC/val",
            "imagenet-1k",
        ),
        tfds_name="imagenet2012",
        tfds_split="validation",
        solution="LOC_val_solution.csv",
    ),
    "imagenetv2-matched-frequency": _imagenet_v2(
        "imagenetv2-matched-frequency", "imagenetv2-matched-frequency", "matched-frequency"
    ),
    "imagenetv2-threshold0.7": _imagenet_v2(
        "imagenetv2-threshold0.7", "imagenetv2-threshold0.7", "threshold-0.7"
    ),
    "imagenetv2-topimages": _imagenet_v2(
        "imagenetv2-topimages", "imagenetv2-top-images", "topimages"
    ),
    "imagenet-sketch": ImageSet(
        num_images=50_889,
        places=("imagenet-sketch/sketch", "imagenet-sketch"),
        tfds_name="imagenet_sketch",
    ),
    "imagenet-a": _subset("imagenet-a", 7_500),
    "imagenet-o": _subset("imagenet-o", 2_000),
    "imagenet-r": _subset("imagenet-r", 30_000),
    **{
        f"imagenet-c/{corruption}/{severity}": _corrupted(corruption, severity)
        for corruption in CORRUPTIONS + EXTRA_CORRUPTIONS
        for severity in SEVERITIES
    },
    **{f"imagenet-p/{perturbation}": _perturbed(perturbation) for perturbation in PERTURBATIONS},
    "digits": _digits(None),
    **{f"digits-{shift}": _digits(shift) for shift in digits.SHIFTS},
}
