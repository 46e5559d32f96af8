"""What `python -m an_jax.attention` has written, as data for the page."""

import json
import math
from typing import Any

from etils import epath

from an_jax.attention import DIRECTORY
from an_jax.errors import InputError, file_errors, with_advice
from an_jax.files import find_entries

MAX_BYTES = 16_000_000  # of files that are embedded with their images
_SPREAD = ("mean", "std_over_images", "std_over_channels")


def read_attention(output_dir: epath.Path) -> list[dict[str, Any]]:
    """Reads OUT/attention/MODEL/SET.json of all models and sets; docs/attention.md describes them.

    Files that would raise the total size above `MAX_BYTES` lose their images and get
    "images_left_out".

    Args:
        output_dir: an --output_dir of `python -m an_jax.attention`, or any other.

    Returns:
        The analyses, sorted by model and set; empty if there are none.

    Raises:
        InputError: a file cannot be read, is damaged, or is of another version.
    """
    models = find_entries(output_dir / DIRECTORY, "*")
    files = [path for model in models for path in find_entries(model, "*.json")]
    analyses = []
    size = 0
    # "digits" before "digits-noise", as it is not with ".json".
    for path in sorted(files, key=lambda path: (path.parent.name, path.stem)):
        try:
            content = path.read_text(encoding="utf-8")
            analysis = json.loads(content)
            _check(analysis)
        except file_errors() as error:
            raise InputError(f"{path} cannot be read: {with_advice(error)}") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(
                f"{path} is damaged or of another version ({error!r}): delete it, or run "
                "`python -m an_jax.attention` again"
            ) from error
        if size + len(content) > MAX_BYTES:
            _leave_out_images(analysis)
        else:
            size += len(content)
        analyses.append(analysis)
    return analyses


def _check(analysis: dict[str, Any]) -> None:
    """Raises ValueError, TypeError, KeyError or AttributeError if a field is missing or invalid."""
    texts = [analysis["model"], analysis["dataset"], analysis["weights_digest"]]
    numbers = [analysis["num_images"]]
    for image in analysis["images"]:
        texts += [image["filename"], image["class"]]
        if not image["thumbnail"].startswith("data:image/webp;base64,"):
            raise ValueError(f"the thumbnail of {image['filename']} is no WebP data URI")
    positions = {image["position"]: image for image in analysis["images"]}
    for layer in analysis["layers"]:
        texts += [layer["name"], layer["norm"]]
        numbers += [layer[field][key] for field in ("scale", "shift") for key in _SPREAD]
        if layer["norm"] != "AN":
            continue
        numbers += [layer["in_use"], layer["in_use_per_image"]]
        shares = (layer["eta_squared"], layer["epsilon_squared"])
        numbers += [share for share in shares if share is not None]
        for component in layer["components"]:
            numbers += [component["mean"], component["std"]]
            for user in component["images"]:
                numbers.append(user["lambda"])
                positions[user["position"]]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a name is not a text")
    if not all(map(math.isfinite, numbers)):
        raise ValueError("a number is NaN or infinite")


def _leave_out_images(analysis: dict[str, Any]) -> None:
    analysis["images"] = []
    analysis["images_left_out"] = True
    for layer in analysis["layers"]:
        for component in layer.get("components", ()):
            component["images"] = []
