"""Self-contained HTML pages: style, script and data in one file, without network requests."""

import base64
import gzip
import hashlib
import html
import json
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from etils import epath

from an_jax.buckets import upload
from an_jax.files import is_remote, replacing

_GENERATOR = '<meta name="generator" content="an_jax">'
_COMMON = ("dom.js", "axes.js", "charts.js")


def build_page(
    title: str, data: object, scripts: Sequence[str], blobs: Mapping[str, bytes] | None = None
) -> str:
    """Returns a page as HTML.

    A Content Security Policy lets the browser run only the page's own script and load nothing.
    The script finds the data in the element "data" and the blobs in "blob-NAME".

    Args:
        title: title and main heading.
        data: a JSON value; numbers that are NaN or infinite become null.
        scripts: files of `assets/`, run after the common ones.
        blobs: name -> bytes that the script unpacks when they are needed.
    """
    style = _asset("page.css")
    script = '"use strict";\n' + "\n".join(map(_asset, (*_COMMON, *scripts)))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data:"
    )
    text = html.escape(title)
    packed = "".join(
        f'<script type="text/plain" id="blob-{name}">{_pack(blob)}</script>\n'
        for name, blob in (blobs or {}).items()
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
{_GENERATOR}
<title>{text}</title>
<style>
{style}</style>
</head>
<body>
<header><h1>{text}</h1></header>
<main id="main"><noscript>This page needs JavaScript.</noscript></main>
<script type="application/json" id="data">{_to_json(data)}</script>
{packed}<script>{script}</script>
</body>
</html>
"""


def write_page(page: str, path: epath.Path) -> None:
    """Writes a page. Raises InputError if it cannot be written."""
    if is_remote(path):
        upload(path, page.encode(), "text/html; charset=utf-8")
        return
    with replacing(path) as temporary:
        temporary.write_bytes(page.encode())


def why_not_page(path: epath.Path) -> str | None:
    """Says that a path is not a page of this project. Returns None if it is one."""
    if not path.is_dir():
        with path.open("rb") as file:
            if _GENERATOR.encode() in file.read(4096):
                return None
    return "is not a page written by an_jax"


def _asset(name: str) -> str:
    return (resources.files(__package__) / "assets" / name).read_text(encoding="utf-8")


def _to_json(data: object) -> str:
    """Formats JSON that neither ends the script element nor starts a comment in it."""
    return json.dumps(_finite(data), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _finite(value: Any) -> Any:
    """Replaces numbers that JSON does not have by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _pack(blob: bytes) -> str:
    return base64.b64encode(gzip.compress(blob, mtime=0)).decode()
