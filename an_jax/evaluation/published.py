"""Measured accuracies beside the published ones: the proof that a conversion was right."""

import math
from collections.abc import Collection, Iterable

from an_jax.errors import InputError
from an_jax.evaluation.report import table
from an_jax.evaluation.result import Result
from an_jax.zoo.released import RELEASED

ROUNDING = 0.0005  # accuracies were published with three decimals
# Other JPEG decoders and another GPU's arithmetic change the prediction of a few images in ten
# thousand; a wrong weight or a wrong preprocessing costs much more.
TOLERANCE = 0.001

_HEADS = (
    *("Model", "Test set", "Accuracy", "Measured", "Published", "Difference"),
    *("95 % interval", "Verdict"),
)


def check_comparable(models: Iterable[str], datasets: Collection[str]) -> None:
    """Raises InputError unless some model was published, on some of the test sets."""
    columns = next(iter(RELEASED.values())).results
    if RELEASED.keys().isdisjoint(models) or columns.keys().isdisjoint(datasets):
        raise InputError(
            "nothing to compare with published numbers: a checkpoint must be named as released "
            f"({', '.join(RELEASED)}), and evaluated on some of {', '.join(columns)}"
        )


def compare_published(results: list[Result]) -> tuple[str, bool]:
    """Compares the results of released models with what was published.

    A difference of more than ROUNDING + TOLERANCE is told as "differs". A partial set is not
    judged. The interval says how far the accuracy on other images of the kind might lie.

    Args:
        results: of any models, on any test sets; what was not published is passed over.

    Returns:
        A table in Markdown, a row an accuracy, and whether none of them differs.

    Raises:
        InputError: nothing in the results was published.
    """
    check_comparable({r.model for r in results}, {r.dataset for r in results})
    rows = []
    for result in results:
        if result.model not in RELEASED or result.dataset not in RELEASED[result.model].results:
            continue
        pair = RELEASED[result.model].results[result.dataset]
        for name, published in zip(("top1", "top5"), pair, strict=True):
            rows.append(_row(result, name, published))
    verdicts = [row[-1] for row in rows]
    counts = ", ".join(f"{verdicts.count(v)} {v}" for v in ("ok", "differs", "partial"))
    text = table(list(_HEADS), ["---"] * 3 + ["---:"] * 3 + [":---:", "---"], rows)
    text += (
        f"\n{counts}. A difference of up to {ROUNDING:g} (rounding) + {TOLERANCE:g} is ok; "
        "a partial set is not judged.\n"
    )
    return text, "differs" not in verdicts


def _row(result: Result, name: str, published: float) -> list[str]:
    measured = result.scores[name]
    difference = measured - published
    low, high = wilson_interval(measured, result.n)
    if result.is_partial:
        verdict = "partial"
    elif abs(difference) <= ROUNDING + TOLERANCE + 1e-9:  # binary fractions of decimal numbers
        verdict = "ok"
    else:
        verdict = "differs"
    return [
        *(result.model, result.dataset, name.replace("top", "top-")),
        *(f"{measured:.5f}", f"{published:.3f}", f"{difference:+z.5f}"),
        *(f"{low:z.4f} to {high:.4f}", verdict),
    ]


def wilson_interval(p: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's interval of a binomial probability, of which p was seen in n draws.

    Args:
        p: fraction that was seen.
        n: number of draws.
        z: quantile of the normal distribution; as it is, for 95 %.
    """
    center = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return (center - half) / scale, (center + half) / scale
