"""A set of images: where it lies in a data directory, and how it is opened."""

import dataclasses
import posixpath
from collections.abc import Sequence

from an_jax.data.folders import (
    IMAGE_SUFFIXES,
    has_folders,
    is_directory,
    list_directory,
    open_class_folders,
    open_flat_folder,
)
from an_jax.data.images.videos import VideoList
from an_jax.data.prepared import open_tfds
from an_jax.data.sets.class_index import imagenet_wnids
from an_jax.data.sources import ImageList, TfdsSplit
from an_jax.data.tf_on_cpu import tf
from an_jax.errors import InputError

Source = ImageList | TfdsSplit | VideoList


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageSet:
    """A row of the table: images that a model is run over once.

    Attributes:
        num_images: number of images, or frames of videos, in the complete set.
        places: directories of class folders, relative to the data directory. The first that
            exists is read, so a directory stands before those that contain it.
        tfds_name: tfds data set to read if none of the places exists.
        tfds_split: split of that data set.
        labels: the labels that the set has, increasing.
        is_named_by_label: whether a class folder is named by its label, not by its wnid.
        solution: name of a CSV file that labels the images if there are no class folders.
        num_frames: number of frames of each video; None for images.
        num_classes: number of logits of a model for the set.
        is_cropped: whether the images were resized and cropped when the set was made.
        needs_data_dir: False for the handwritten digits, which come with scikit-learn.
        digits_shift: key of digits.SHIFTS, for the handwritten digits.
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
    needs_data_dir: bool = True
    digits_shift: str | None = None

    @property
    def label_of(self) -> dict[str, int]:
        """Name of a class folder -> label; numbers may be padded with zeros, as 0000 and 0001."""
        if self.is_named_by_label:
            unpadded = {str(label): label for label in self.labels}
            return unpadded | {f"{label:04d}": label for label in self.labels}
        return {imagenet_wnids()[label]: label for label in self.labels}

    def open(self, data_dir: str) -> Source | None:
        """Opens what the data directory has of the set; returns None if nothing is there.

        Raises:
            InputError: what is there cannot be read as this set.
        """
        root = self.find_folder(data_dir)
        files = self._open_tfds(data_dir) if root is None else self._open_folder(root, data_dir)
        return VideoList(files, self.num_frames) if files is not None and self.num_frames else files

    def find_folder(self, data_dir: str) -> str | None:
        """Returns the first of the places that exists."""
        for place in self.places:
            root = posixpath.join(data_dir, place)
            if is_directory(root) and not _holds_only_real_labels(root):
                return root
        return None

    def _open_folder(self, root: str, data_dir: str) -> ImageList:
        if self.solution is None or has_folders(root):
            suffixes = (".mp4",) if self.num_frames else IMAGE_SUFFIXES
            return open_class_folders(root, self.label_of, suffixes)
        solution = _find_above(self.solution, root, data_dir)
        if solution is None:
            raise InputError(
                f"{root} has no class folders: sort the images into folders named by wnid, or put "
                f"ILSVRC's {self.solution} beside them"
            )
        return open_flat_folder(root, solution, imagenet_wnids())

    def _open_tfds(self, data_dir: str) -> TfdsSplit | None:
        if self.tfds_name is None:
            return None
        feature = "video" if self.num_frames else "image"
        return open_tfds(self.tfds_name, self.tfds_split, data_dir, feature)


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
