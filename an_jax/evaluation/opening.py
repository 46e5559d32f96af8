"""Opens test sets: their image sets, and what their metrics need besides predictions."""

from concurrent.futures import ThreadPoolExecutor

from an_jax.data.sets.alexnet_p import read_alexnet_p
from an_jax.data.sets.opening import Source, open_image_set
from an_jax.data.sets.real_labels import match_labels, read_real_labels
from an_jax.data.sets.test_sets import TestSet
from an_jax.data.sources import ImageList
from an_jax.errors import InputError, NotThereError
from an_jax.evaluation.scoring import References


def open_test_sets(
    test_sets: dict[str, TestSet], data_dir: str | None, allow_partial: bool
) -> tuple[dict[str, Source], References]:
    """Opens every image set of the test sets; optional ones may be missing.

    Args:
        test_sets: name -> test set.
        data_dir: directory of the test sets; None if they come with a package.
        allow_partial: whether images may be missing.

    Returns:
        Image set -> source, and the references of the metrics.

    Raises:
        InputError: a set or a reference is missing or invalid.
    """
    references = _read_references(test_sets, data_dir)
    sources = _open_sources(test_sets, data_dir, allow_partial)
    validation = sources.get("imagenet-1k")
    if references.real_labels and isinstance(validation, ImageList):
        match_labels(validation.filenames, references.real_labels)  # checks the file names
    return sources, references


def _read_references(test_sets: dict[str, TestSet], data_dir: str | None) -> References:
    metrics = {test_set.metric for test_set in test_sets.values()}
    if data_dir is None:
        if metrics & {"real", "perturbation"}:
            raise InputError("the test sets need --data_dir")
        return References(None, None)
    return References(
        real_labels=read_real_labels(data_dir) if "real" in metrics else None,
        alexnet_p=read_alexnet_p(data_dir) if "perturbation" in metrics else None,
    )


def _open_sources(
    test_sets: dict[str, TestSet], data_dir: str | None, allow_partial: bool
) -> dict[str, Source]:
    required = [name for t in test_sets.values() for name in t.image_sets]
    optional = [name for t in test_sets.values() for name in t.optional_sets]
    names = list(dict.fromkeys([*required, *optional]))

    def open_one(name: str) -> Source | None:
        try:
            return open_image_set(name, data_dir, allow_partial)
        except NotThereError:
            if name in optional:
                return None
            raise

    with ThreadPoolExecutor(8) as pool:  # listing a set on gs:// takes seconds
        sources = list(pool.map(open_one, names))
    return {n: source for n, source in zip(names, sources, strict=True) if source is not None}
