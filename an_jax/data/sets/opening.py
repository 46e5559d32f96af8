"""Opens image sets: finds their files in a data directory and checks that all are there."""

import posixpath

from an_jax.data.folders import (
    IMAGE_SUFFIXES,
    check_data_directory,
    has_folders,
    has_labels_in_names,
    is_directory,
    list_directory,
    open_class_folders,
    open_flat_folder,
)
from an_jax.data.images.videos import VideoList
from an_jax.data.prepared import open_tfds
from an_jax.data.sets.class_index import imagenet_wnids
from an_jax.data.sets.image_sets import IMAGE_SETS, ImageSet
from an_jax.data.sources import ImageList, TfdsSplit
from an_jax.data.tf_on_cpu import explain, tf
from an_jax.errors import InputError, NotThereError, file_errors

Source = ImageList | TfdsSplit | VideoList


def open_image_set(name: str, data_dir: str | None, allow_partial: bool) -> Source:
    """Opens an image set and checks the number of its images.

    Args:
        name: key of IMAGE_SETS.
        data_dir: directory that contains the sets; may be gs://.
        allow_partial: whether to accept another number of images than the whole set has.

    Raises:
        NotThereError: the set is not in the data directory.
        InputError: the set cannot be read, or has another number of images without
            `allow_partial`.
    """
    image_set = IMAGE_SETS[name]
    if image_set.in_memory is not None:
        return image_set.in_memory()
    if data_dir is None:
        raise InputError(f"{name} needs --data_dir")
    data_dir = data_dir.rstrip("/")
    check_data_directory(data_dir)
    try:
        source = _open_directory(image_set, data_dir)
    except file_errors() as error:
        raise InputError(f"{name} in {data_dir} cannot be read: {explain(error)}") from error
    if source is None:
        prepared = f" or a tfds-prepared {image_set.tfds_name}/" if image_set.tfds_name else ""
        raise NotThereError(f"no {name} in {data_dir}: expected class folders in {name}/{prepared}")
    if not len(source):
        raise InputError(f"{name} is empty in {data_dir}")
    if not allow_partial:
        _check_complete(name, data_dir, len(source), image_set.num_images)
    return source


def find_folder(image_set: ImageSet, data_dir: str) -> str | None:
    """Returns the first of the set's places that holds images or class folders.

    If none does, returns the first that exists and holds more than ReaL's labels, or None.
    """
    roots = [posixpath.join(data_dir, place) for place in image_set.places]
    roots = [root for root in roots if is_directory(root)]
    fallback = next((root for root in roots if not _holds_only_real_labels(root)), None)
    return next((root for root in roots if _holds_images(image_set, root)), fallback)


def _check_complete(name: str, data_dir: str, num_images: int, expected: int) -> None:
    if num_images < expected:
        raise InputError(
            f"{name} in {data_dir}: {num_images:,} of {expected:,} images. Pass --allow_partial to "
            "evaluate these; the results then state n"
        )
    if num_images > expected:
        raise InputError(
            f"{name} in {data_dir}: {num_images:,} images, more than the {expected:,} of the whole "
            "set. Remove the surplus images"
        )


def _open_directory(image_set: ImageSet, data_dir: str) -> Source | None:
    """Opens the set in a data directory; returns None if neither a folder nor tfds has it."""
    root = find_folder(image_set, data_dir)
    files: ImageList | TfdsSplit | None
    if root is not None and _holds_images(image_set, root):
        files = _open_folder(image_set, root, data_dir)
    else:
        files = _open_tfds(image_set, data_dir)
        if files is None and root is not None:
            files = _open_folder(image_set, root, data_dir)  # says what is wrong with it
    if files is None or image_set.num_frames is None:
        return files
    return VideoList(files, image_set.num_frames)


def _open_folder(image_set: ImageSet, root: str, data_dir: str) -> ImageList:
    if image_set.solution is None or has_folders(root):
        suffixes = (".mp4",) if image_set.num_frames else IMAGE_SUFFIXES
        return open_class_folders(root, image_set.label_of, suffixes, allow_empty=True)
    solution = _find_above(image_set.solution, root, data_dir)
    if solution is None and not has_labels_in_names(root):
        raise InputError(
            f"{root} has no class folders: sort the images into folders named by wnid, or put "
            f"ILSVRC's {image_set.solution} beside them"
        )
    return open_flat_folder(root, solution, imagenet_wnids())


def _open_tfds(image_set: ImageSet, data_dir: str) -> TfdsSplit | None:
    if image_set.tfds_name is None:
        return None
    feature = "video" if image_set.num_frames else "image"
    return open_tfds(image_set.tfds_name, image_set.tfds_split, data_dir, feature)


def _holds_images(image_set: ImageSet, root: str) -> bool:
    """Whether a directory holds a class folder of the set, or images if these may lie flat."""
    entries, label_of = list_directory(root), image_set.label_of
    if any(entry in label_of for entry in entries):
        return True
    return image_set.solution is not None and any(
        entry.lower().endswith(IMAGE_SUFFIXES) for entry in entries
    )


def _holds_only_real_labels(root: str) -> bool:
    """ReaL's labels lie in imagenet-1k/, even if tfds prepared the images."""
    return posixpath.basename(root) == "imagenet-1k" and list_directory(root) == ["real.json"]


def _find_above(name: str, root: str, data_dir: str) -> str | None:
    """Finds a file in `root` or a directory above it, up to `data_dir`."""
    directory = root
    while not tf.io.gfile.exists(posixpath.join(directory, name)):
        if directory == data_dir:
            return None
        directory = posixpath.dirname(directory)
    return posixpath.join(directory, name)
