"""Results as people and programs want them: a table, JSON, timm's CSV files, a picture."""

import csv
import dataclasses
import json
from pathlib import Path

from an_jax.data.test_sets import TEST_SETS

TIMM_COLUMNS = (
    *("model", "img_size", "top1", "top1_err", "top5", "top5_err"),
    *("param_count", "crop_pct", "interpolation"),
)


@dataclasses.dataclass(frozen=True)
class Result:
    """One cell of the table: a model on a test set.

    Attributes:
        model: name of the checkpoint.
        architecture: its name in the zoo.
        dataset: name of the test set.
        n: images counted; `expected`: images that the whole set has.
        top1, top5: accuracies as fractions of n.
        num_params: trained values of the model.
        image_size, crop_pct, interpolation: of the preprocessing.
        dtype: compute dtype.
    """

    model: str
    architecture: str
    dataset: str
    n: int
    expected: int
    top1: float
    top5: float
    num_params: int
    image_size: int
    crop_pct: float
    interpolation: str
    dtype: str


def write_report(results: list[Result], output_dir: Path) -> str:
    """Writes results.md, results.json, one CSV a test set, accuracy_by_test_set.png.

    Returns:
        The text of results.md.
    """
    table = markdown_table(results)
    (output_dir / "results.md").write_text(table)
    entries = [dataclasses.asdict(result) for result in results]
    (output_dir / "results.json").write_text(json.dumps(entries, indent=2) + "\n")
    for dataset in _unique(r.dataset for r in results):
        write_csv([r for r in results if r.dataset == dataset], output_dir / TEST_SETS[dataset].csv)
    plot(results, output_dir / "accuracy_by_test_set.png")
    return table


def markdown_table(results: list[Result]) -> str:
    """The published form: a row a model, and for each test set (top-1, top-5) as fractions."""
    datasets = _unique(r.dataset for r in results)
    by_cell = {(r.model, r.dataset): r for r in results}
    lines = [
        "| " + " | ".join(["Model", "Params (M)", *datasets]) + " |",
        "| --- | ---: |" + " :---: |" * len(datasets),
    ]
    for model in _unique(r.model for r in results):
        of_model = [by_cell[model, dataset] for dataset in datasets]
        cells = [model, f"{of_model[0].num_params / 1e6:.3f}", *map(_cell, of_model)]
        lines.append("| " + " | ".join(cells) + " |")
    text = "\n".join(lines) + "\n\nEach pair is (top-1, top-5) accuracy.\n"
    partial = {r.dataset: r for r in results if r.n != r.expected}
    for dataset, result in partial.items():
        text += f"\n{dataset}: n = {result.n} of {result.expected} images.\n"
    return text


def _cell(result: Result) -> str:
    cell = f"({result.top1:.3f}, {result.top5:.3f})"
    return cell if result.n == result.expected else f"{cell} n={result.n}"


def write_csv(results: list[Result], path: Path) -> None:
    """timm's columns, best model first; accuracies and errors in percent."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(TIMM_COLUMNS)
        for r in sorted(results, key=lambda r: (-r.top1, -r.top5, r.model)):
            accuracies = (r.top1, 1 - r.top1, r.top5, 1 - r.top5)
            writer.writerow(
                [r.model, r.image_size]
                + [f"{100 * a:.3f}" for a in accuracies]
                + [f"{r.num_params / 1e6:,.2f}", f"{r.crop_pct:.3f}", r.interpolation]
            )


def plot(results: list[Result], path: Path) -> None:
    """Top-1 accuracy by test set, a bar a model."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    datasets, models = _unique(r.dataset for r in results), _unique(r.model for r in results)
    top1 = {(r.model, r.dataset): 100 * r.top1 for r in results}
    width = 0.8 / len(models)
    figure, axes = pyplot.subplots(
        figsize=(max(4.0, 1.4 * len(datasets) + 1), 4.0), layout="constrained"
    )
    for i, model in enumerate(models):
        positions = [x + (i - (len(models) - 1) / 2) * width for x in range(len(datasets))]
        bars = axes.bar(positions, [top1[model, d] for d in datasets], width * 0.92, label=model)
        if len(models) <= 4:
            axes.bar_label(bars, fmt="%.1f", fontsize=8, padding=1)
    axes.set_xticks(range(len(datasets)), datasets)
    axes.set_ylim(0, 108)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel("top-1 accuracy (%)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=min(4, len(models)), frameon=False)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _unique(values) -> list[str]:
    return list(dict.fromkeys(values))
