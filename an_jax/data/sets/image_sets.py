"""The sets of images that test sets are made of, a table: how each is opened, how many it has."""

import dataclasses
import functools
import posixpath
from collections.abc import Callable, Mapping

from an_jax.data.images.videos import VideoList
from an_jax.data.sets import digits
from an_jax.data.sets.class_index import imagenet_wnids, subset
from an_jax.data.sources import (
    ImageList,
    TfdsSplit,
    is_directory,
    list_directory,
    open_class_folders,
    open_flat_folder,
    open_tfds,
)
from an_jax.data.tf_on_cpu import tf
from an_jax.errors import InputError, NotThereError

Source = ImageList | TfdsSplit | VideoList

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


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Images that a model is run over once.

    Attributes:
        num_images: how many the whole set has.
        num_classes: number of logits of a model for it.
        open: data directory -> source; raises InputError if the set is not there.
        needs_data_dir: whether `open` looks at the data directory at all.
        is_cropped: whether the images were resized and cropped when the set was made.
    """

    num_images: int
    num_classes: int
    open: Callable[[str], Source]
    needs_data_dir: bool = True
    is_cropped: bool = False


def _wnids(labels=range(1000)) -> Mapping[str, int]:
    return {imagenet_wnids()[label]: label for label in labels}


def _open_folders(places, label_of, prepared, data_dir: str) -> Source:
    """Class folders in the first of `places` that is there, or data prepared by tfds."""
    for place in places:
        if is_directory(data_dir, place):
            return open_class_folders(posixpath.join(data_dir, place), label_of())
    return _open_prepared(min(places, key=len), prepared, data_dir)


def _open_prepared(place, prepared, data_dir, feature="image"):
    """Data prepared by tfds; the error says where else class folders are expected."""
    source = open_tfds(*prepared, data_dir, feature)
    if source is None:
        raise NotThereError(
            f"no {place.removesuffix('/val')} in {data_dir}: expected class folders in {place}/ "
            f"or a tfds-prepared {prepared[0]}/"
        )
    return source


def _folders(num_images, places, label_of, prepared, is_cropped=False) -> ImageSet:
    opener = functools.partial(_open_folders, places, label_of, prepared)
    return ImageSet(num_images, 1000, opener, is_cropped=is_cropped)


_VAL = ("imagenet-1k/val", "imagenet-1k/Data/CLS-LOC/val", "imagenet-1k/ILSVRC/Data/CLS-LOC/val")
_VAL += ("ILSVRC/Data/CLS-LOC/val", "Data/CLS-LOC/val", "imagenet-1k")


def _open_val(data_dir: str) -> Source:
    """ILSVRC's validation set: class folders, a flat folder with its solution file, or tfds."""
    place = next((place for place in _VAL if _may_be_val(data_dir, place)), None)
    if place is None:
        return _open_prepared(_VAL[0], ("imagenet2012", "validation"), data_dir)
    root = posixpath.join(data_dir, place)
    if any(is_directory(root, entry) for entry in list_directory(root)[:100]):
        return open_class_folders(root, _wnids())
    folder = root
    while len(folder) >= len(data_dir):
        solution = posixpath.join(folder, "LOC_val_solution.csv")
        if tf.io.gfile.exists(solution):
            return open_flat_folder(root, solution, imagenet_wnids())
        folder = posixpath.dirname(folder)
    raise InputError(
        f"{root} has no class folders: sort the images into folders named by wnid, or put "
        "ILSVRC's LOC_val_solution.csv beside them"
    )


def _may_be_val(data_dir: str, place: str) -> bool:
    """Whether there is a directory; imagenet-1k itself must hold more than ReaL's labels."""
    root = posixpath.join(data_dir, place)
    return is_directory(root) and (place != _VAL[-1] or list_directory(root) != ["real.json"])


def _v2(column, archive, config) -> ImageSet:
    """Folders are named by label: 0, 1, 10, ..., or 0000, 0001, ... where they were renamed."""

    def label_of():
        return {name: label for label in range(1000) for name in (str(label), f"{label:04d}")}

    places = (column, f"{column}/{archive}", archive)
    return _folders(10_000, places, label_of, (f"imagenet_v2/{config}", "test"))


def _subset(name, num_images) -> ImageSet:
    def label_of():
        return _wnids(subset(name))

    places = (f"{name}/{name}", name)  # the first where the archive's own folder was kept
    return _folders(num_images, places, label_of, (name.replace("-", "_"), "test"))


def _corrupted(corruption, severity) -> ImageSet:
    place = f"imagenet-c/{corruption}/{severity}"
    prepared = (f"imagenet_c/{corruption}_{severity}", "test")
    return _folders(50_000, (place,), _wnids, prepared, is_cropped=True)


def _perturbed(perturbation) -> ImageSet:
    num_frames = 41 if perturbation == "translate" else 31
    place = f"imagenet-p/{perturbation}"

    def opener(data_dir):
        if is_directory(data_dir, place):
            videos = open_class_folders(posixpath.join(data_dir, place), _wnids(), (".mp4",))
        else:
            prepared = (f"imagenet_p/{perturbation}", "test")
            videos = _open_prepared(place, prepared, data_dir, feature="video")
        return VideoList(videos, num_frames)

    return ImageSet(50_000 * num_frames, 1000, opener, is_cropped=True)


def _digits(shift: str | None) -> ImageSet:
    def opener(data_dir):
        return digits.open_digits("test", shift)

    return ImageSet(digits.NUM_TEST, 10, opener, needs_data_dir=False)


IMAGE_SETS: dict[str, ImageSet] = {
    "imagenet-1k": ImageSet(50_000, 1000, _open_val),
    **{
        f"imagenetv2-{name}": _v2(f"imagenetv2-{name}", f"imagenetv2-{archive}-format-val", config)
        for name, archive, config in (
            ("matched-frequency", "matched-frequency", "matched-frequency"),
            ("threshold0.7", "threshold0.7", "threshold-0.7"),
            ("topimages", "top-images", "topimages"),
        )
    },
    "imagenet-sketch": _folders(
        50_889, ("imagenet-sketch/sketch", "imagenet-sketch"), _wnids, ("imagenet_sketch", "test")
    ),
    "imagenet-a": _subset("imagenet-a", 7_500),
    "imagenet-o": _subset("imagenet-o", 2_000),
    "imagenet-r": _subset("imagenet-r", 30_000),
    **{
        f"imagenet-c/{corruption}/{severity}": _corrupted(corruption, severity)
        for corruption in CORRUPTIONS + EXTRA_CORRUPTIONS
        for severity in SEVERITIES
    },
    **{f"imagenet-p/{p}": _perturbed(p) for p in PERTURBATIONS},
    "digits": _digits(None),
    **{f"digits-{shift}": _digits(shift) for shift in digits.SHIFTS},
}


def open_image_set(name: str, data_dir: str | None, allow_partial: bool) -> Source:
    """Opens a set and counts it.

    Raises:
        InputError: nothing there, or (without `allow_partial`) images missing.
    """
    image_set = IMAGE_SETS[name]
    if image_set.needs_data_dir:
        if data_dir is None:
            raise InputError(f"{name} needs --data_dir")
        data_dir = data_dir.rstrip("/")
        if not is_directory(data_dir):
            raise InputError(f"no data directory {data_dir}")
    try:
        source = image_set.open(data_dir)
    except tf.errors.OpError as error:
        raise InputError(f"{name} in {data_dir} cannot be read: {error.message}") from error
    if not len(source):
        raise InputError(f"{name} is empty in {data_dir}")
    if len(source) != image_set.num_images and not allow_partial:
        raise InputError(
            f"{name} has {len(source)} images here, the whole set {image_set.num_images}; "
            "give --allow_partial to evaluate on these (the table then says n)"
        )
    return source
