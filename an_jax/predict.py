"""Predicts the classes of pictures.

python -m an_jax.predict --checkpoint CHECKPOINT PICTURE_OR_FOLDER ...
"""

import argparse
import functools
import io
import json
import sys
from collections.abc import Sequence

import matplotlib.figure
import numpy as np

from an_jax.classifier import Prediction, load_classifier
from an_jax.data.folders import IMAGE_SUFFIXES, is_hidden
from an_jax.errors import InputError, check_utf8, exit_status
from an_jax.evaluation.plots import shorten
from an_jax.files import absolute, check_destination, why_not_png, write_atomically
from an_jax.jax_settings import collect_garbage_rarely

COLUMNS = 5  # of the contact sheet


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m an_jax.predict", description=__doc__)
    parser.add_argument("pictures", nargs="+", help="files, or folders of images; may be gs://")
    parser.add_argument(
        "--checkpoint",
        required=True,
        help="a checkpoint, training run or step of it (RUN/checkpoints/STEP); may be gs://",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--picture", metavar="PNG", help="draw the pictures with their classes")
    return exit_status(functools.partial(run, parser.parse_args(argv)))


def run(args: argparse.Namespace) -> None:
    """Predicts and prints.

    Raises:
        InputError: the checkpoint or a picture cannot be read, or the PNG cannot be written.
    """
    if args.picture:
        check_destination(args.picture, overwrite=True, why_foreign=why_not_png)
    paths = [path for picture in args.pictures for path in find_pictures(picture)]
    classifier = load_classifier(args.checkpoint)
    predictions = classifier(paths)
    if args.json:
        fields = [[best._asdict() for best in row] for row in predictions]
        print(json.dumps(dict(zip(paths, fields, strict=True)), indent=2))
    else:
        print("\n".join(table(paths, predictions)))
    if args.picture:
        figure = contact_sheet(paths, classifier.preprocess(paths), predictions)
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=100)
        write_atomically(absolute(args.picture), content.getvalue())


def find_pictures(path: str) -> list[str]:
    """Returns the path of a file, or of the images in a folder and the folders below it.

    Raises:
        InputError: the path does not exist, or the folder holds no images.
    """
    root = absolute(path)
    if not root.is_dir():
        if not root.exists():
            raise InputError(f"no picture {path}")
        return [path]
    found = [
        str(folder / name)
        for folder, _, names in root.walk()
        for name in names
        if name.lower().endswith(IMAGE_SUFFIXES)
        and not any(map(is_hidden, (folder / name).relative_to(root).parts))
    ]
    if not found:
        raise InputError(f"{path} holds no images (looked for {', '.join(IMAGE_SUFFIXES)})")
    check_utf8(found)
    return sorted(found)


def table(paths: Sequence[str], predictions: Sequence[Sequence[Prediction]]) -> list[str]:
    """Returns a line for each picture and each of its classes."""
    lines = []
    for path, row in zip(paths, predictions, strict=True):
        lines.append(path)
        lines += [f"  {100 * best.probability:5.1f} %  {best.name}" for best in row]
    return lines


def contact_sheet(
    paths: Sequence[str], images: np.ndarray, predictions: Sequence[Sequence[Prediction]]
) -> matplotlib.figure.Figure:
    """Draws what the model saw, uint8 [N, S, S, 3], and the three most probable classes."""
    rows = -(-len(paths) // COLUMNS)
    columns = min(COLUMNS, len(paths))
    figure = matplotlib.figure.Figure((2.6 * columns, 3.4 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes:
        ax.axis("off")
    for ax, path, image, row in zip(axes, paths, images, predictions, strict=False):
        ax.imshow(image)
        best = [f"{100 * p.probability:.0f} % {shorten(p.name)}" for p in row[:3]]
        ax.set_title("\n".join([shorten(absolute(path).name), *best]), fontsize=8, loc="left")
        ax.title.set_parse_math(False)  # names may contain $
    return figure


if __name__ == "__main__":
    collect_garbage_rarely()
    sys.exit(main())
