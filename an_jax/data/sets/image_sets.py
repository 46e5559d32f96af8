"""The table of image sets: where each set of images lies, and how many images it has."""

from an_jax.data.folders import is_directory
from an_jax.data.sets import digits
from an_jax.data.sets.class_index import subset
from an_jax.data.sets.image_set import ImageSet, Source
from an_jax.data.tf_on_cpu import tf
from an_jax.errors import InputError, NotThereError

# Hendrycks & Dietterich, ICLR 2019: the benchmark's corruptions, four more, the perturbations.
CORRUPTIONS = (
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness"),
    *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
EXTRA_CORRUPTIONS = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
SEVERITIES = (1, 2, 3, 4, 5)
PERTURBATIONS = (
    *("gaussian_noise", "shot_noise", "motion_blur", "zoom_blur", "snow"),
    *("brightness", "translate", "rotate", "tilt", "scale"),
)


def _imagenet_v2(name: str, archive: str, config: str) -> ImageSet:
    folder = f"{archive}-format-val"  # the archive's own folder
    return ImageSet(
        num_images=10_000,
        places=(f"{name}/{folder}", name, folder),
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


def _corrupted(corruption: str, severity: int) -> ImageSet:
    return ImageSet(
        num_images=50_000,
        places=(f"imagenet-c/{corruption}/{severity}",),
        tfds_name=f"imagenet_c/{corruption}_{severity}",
        is_cropped=True,
    )


def _perturbed(perturbation: str) -> ImageSet:
    num_frames = 41 if perturbation == "translate" else 31
    return ImageSet(
        num_images=50_000 * num_frames,
        num_frames=num_frames,
        places=(f"imagenet-p/{perturbation}",),
        tfds_name=f"imagenet_p/{perturbation}",
        is_cropped=True,
    )


def _digits(shift: str | None) -> ImageSet:
    return ImageSet(
        num_images=digits.NUM_TEST,
        labels=range(10),
        is_named_by_label=True,
        num_classes=10,
        needs_data_dir=False,
        digits_shift=shift,
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


def open_image_set(name: str, data_dir: str | None, allow_partial: bool) -> Source:
    """Opens an image set and checks the number of its images.

    Args:
        name: key of IMAGE_SETS.
        data_dir: directory that contains the sets; may be gs://.
        allow_partial: whether images may be missing.

    Raises:
        NotThereError: the set is not in the data directory.
        InputError: the set cannot be read, or images are missing without `allow_partial`.
    """
    image_set = IMAGE_SETS[name]
    if not image_set.needs_data_dir:
        return digits.open_digits("test", image_set.digits_shift)
    if data_dir is None:
        raise InputError(f"{name} needs --data_dir")
    data_dir = data_dir.rstrip("/")
    if not is_directory(data_dir):
        raise InputError(f"no data directory {data_dir}")
    try:
        source = image_set.open(data_dir)
    except tf.errors.OpError as error:
        raise InputError(f"{name} in {data_dir} cannot be read: {error.message}") from error
    if source is None:
        prepared = f" or a tfds-prepared {image_set.tfds_name}/" if image_set.tfds_name else ""
        raise NotThereError(f"no {name} in {data_dir}: expected class folders in {name}/{prepared}")
    if not len(source):
        raise InputError(f"{name} is empty in {data_dir}")
    if len(source) != image_set.num_images and not allow_partial:
        raise InputError(
            f"{name} has {len(source)} images here, the whole set {image_set.num_images}. Give "
            "--allow_partial to evaluate on these; the results then state their number"
        )
    return source
