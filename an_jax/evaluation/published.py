"""Compares measured with published accuracies to verify a conversion."""

import math
from collections.abc import Collection, Iterable

from an_jax.errors import InputError
from an_jax.evaluation.output import table
from an_jax.evaluation.result import Result
from an_jax.zoo.released import RELEASED

ROUNDING = 0.0005  # accuracies were published with three decimals
# Another JPEG decoder or GPU changes the predictions for a few images in ten thousand. With wrong
# weights or preprocessing many more change.
TOLERANCE = 0.001

_HEADS = [
    "Model",
    "Test set",
    "Accuracy",
    "Measured",
    "Published",
    "Difference",
    "95 % interval",
    "Verdict",
]


def check_comparable(models: Iterable[str], datasets: Collection[str]) -> None:
    """Raises InputError if no published model is evaluated on a published test set."""
    columns = next(iter(RELEASED.values())).results
    if RELEASED.keys().isdisjoint(models) or columns.keys().isdisjoint(datasets):
        raise InputError(
            "no published results to compare with: name a checkpoint like the released one "
            f"({', '.join(RELEASED)}) and evaluate it on any of {', '.join(columns)}"
        )


def compare_published(results: list[Result]) -> tuple[str, bool]:
    """Compares the results of released models with the published ones.

    The verdict is "differs" if the difference exceeds ROUNDING + TOLERANCE, and "partial" if images
    are missing. The interval is the sampling uncertainty of the measured accuracy.

    Args:
        results: of any models on any test sets; results without a published one are ignored.

    Returns:
        A Markdown table with one row per accuracy, and whether no accuracy differs.

    Raises:
        InputError: none of the results was published.
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
    text = table(_HEADS, ["---"] * 3 + ["---:"] * 3 + [":---:", "---"], rows)
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
    elif abs(difference) <= ROUNDING + TOLERANCE + 1e-9:  # 1e-9 allows for floating-point rounding
        verdict = "ok"
    else:
        verdict = "differs"
    return [
        result.model,
        result.dataset,
        name.replace("top", "top-"),
        f"{measured:.5f}",
        f"{published:.3f}",
        f"{difference:+z.5f}",
        f"{low:z.4f} to {high:.4f}",
        verdict,
    ]


def wilson_interval(p: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Returns Wilson's confidence interval of a binomial probability.

    Args:
        p: observed fraction.
        n: number of draws.
        z: quantile of the normal distribution; the default gives 95 %.
    """
    center = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return (center - half) / scale, (center + half) / scale
