"""Compares a data directory with the table of image sets. Lists folders; reads no images."""

import posixpath

from an_jax.data.findings import Count, Finding
from an_jax.data.folders import list_directory
from an_jax.data.images.videos import VideoList
from an_jax.data.sets import real_labels
from an_jax.data.sets.class_index import SUBSETS, imagenet_wnids, subset
from an_jax.data.sets.image_sets import IMAGE_SETS, ImageSet
from an_jax.data.sets.opening import find_folder, open_image_set
from an_jax.data.sets.test_sets import TEST_SETS
from an_jax.data.sources import ImageList, TfdsSplit
from an_jax.data.tf_on_cpu import explain
from an_jax.errors import InputError, NotThereError, file_errors


def inspect_image_set(name: str, data_dir: str) -> Finding:
    """Opens an image set and counts its images and classes."""
    image_set = IMAGE_SETS[name]
    try:
        source = open_image_set(name, data_dir, allow_partial=True)
    except NotThereError as error:
        return Finding(name, "missing", _counts(image_set), problems=[str(error)])
    except file_errors(InputError) as error:
        problem, hint = _explain(error), _suggest_subset(name, data_dir)
        return Finding(name, _status(error), _counts(image_set), problems=[f"{problem}{hint}"])
    files = source.videos if isinstance(source, VideoList) else source
    if isinstance(files, TfdsSplit):
        num_classes, class_problems = None, []
        where = f"tfds {files.builder.info.full_name}"
    else:
        num_classes = len({*files.labels.tolist()})
        class_problems = _check_classes(image_set, files)
        where = posixpath.relpath(files.root, data_dir) if files.root else "in memory"
        if files.root and image_set.is_named_by_label:
            where += " (a folder's number is its label: 0, 1, 10, ... need no renaming)"
    num_missing = image_set.num_images - len(source)
    if num_missing > 0:
        problems = [f"images missing: {num_missing:,}", *class_problems]
    elif num_missing < 0:
        problems = [f"images too many: {-num_missing:,}", *class_problems]
    else:
        problems = class_problems
    # Where folders are named by label, a class without images suggests that they were renumbered.
    is_wrong = num_missing < 0 or (image_set.is_named_by_label and class_problems)
    status = "wrong" if is_wrong else "partial" if problems else "ok"
    return Finding(name, status, _counts(image_set, len(source), num_classes), where, problems)


def _status(error: Exception) -> str:
    """Tells what the file system refuses from what the user has to replace."""
    return "error" if isinstance(error.__cause__ or error, file_errors()) else "wrong"


def _explain(error: Exception) -> str:
    return str(error) if isinstance(error, InputError) else explain(error)


def _counts(
    image_set: ImageSet, num_images: int = 0, num_classes: int | None = None
) -> tuple[Count, Count]:
    return (
        Count(num_images, image_set.num_images, "images"),
        Count(num_classes, len(image_set.labels), "classes"),
    )


def _check_classes(image_set: ImageSet, files: ImageList) -> list[str]:
    """Reports class folders that are missing, empty or duplicated."""
    problems = []
    folders = {filename.split("/")[0] for filename in files.filenames}
    labels = {*files.labels.tolist()}
    if len(folders) > len(labels):
        problems.append(
            f"{len(folders):,} folders for {len(labels):,} classes: some classes have two folders, "
            "such as 1 and 0001"
        )
    missing = [folder for folder, label in image_set.label_of.items() if label not in labels]
    if image_set.is_named_by_label:
        are_padded = all(len(folder) == 4 for folder in folders)
        missing = [folder for folder in missing if (len(folder) == 4) == are_padded]
    if missing:
        present = set(list_directory(files.root))
        names = [f"{name} (empty)" if name in present else name for name in missing[:3]]
        if len(missing) > 3:
            names.append("...")
        problems.append(f"classes without images: {len(missing)} ({', '.join(names)})")
    return problems


def _suggest_subset(name: str, data_dir: str) -> str:
    """Names the subset of 200 classes that the folders belong to, if it is another one."""
    if name not in SUBSETS:
        return ""
    try:
        root = find_folder(IMAGE_SETS[name], data_dir)
        folders = set(list_directory(root)) if root else set()
    except file_errors():  # this error is reported already
        return ""
    labels = {label for label, wnid in enumerate(imagenet_wnids()) if wnid in folders}
    matching = [other for other in SUBSETS if labels and labels <= {*subset(other)}]
    return f"; it looks like {matching[0]}" if matching and name not in matching else ""


def inspect_real_labels(data_dir: str) -> Finding:
    """Looks for ReaL labels; those prepared by tfds are not read."""
    name = "real.json"
    try:
        labels_source = real_labels.find_real_labels(data_dir)
        if isinstance(labels_source, TfdsSplit):
            num_entries, num_labelled = len(labels_source), None
            where = f"tfds {labels_source.builder.info.full_name}"
        else:
            labels = real_labels.read_real_labels(data_dir)
            num_entries, num_labelled = len(labels), sum(map(bool, labels))
            where = real_labels.REAL_JSON
    except NotThereError as error:
        return Finding(name, "missing", _label_counts(0, None), problems=[str(error)])
    except file_errors(InputError) as error:
        return Finding(name, _status(error), _label_counts(0, None), problems=[_explain(error)])
    counts = _label_counts(num_entries, num_labelled)
    if all(count.actual in (None, count.expected) for count in counts):
        return Finding(name, "ok", counts, where)
    return Finding(name, "wrong", counts, where, ["these are not the published labels"])


def _label_counts(num_entries: int, num_labelled: int | None) -> tuple[Count, Count]:
    published = TEST_SETS["imagenet-1k-reassessed"].num_images
    return (
        Count(num_entries, real_labels.NUM_IMAGES, "entries"),
        Count(num_labelled, published, "with labels"),
    )
