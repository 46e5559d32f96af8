"""Progress bars with rate and ETA; in a log, a line twice a minute."""

import sys

from tqdm import tqdm


def progress_bar(
    total: int, title: str, *, initial: int = 0, nested: bool = False, hidden: bool = False
) -> tqdm:
    """A bar that counts images.

    Args:
        total: images in all.
        title: stands before the bar.
        initial: images done before.
        nested: below another bar: goes when it is full, and is not drawn in a log.
        hidden: not drawn: another process draws it.
    """
    terminal = sys.stderr.isatty()
    return tqdm(
        total=total,
        initial=initial,
        desc=title,
        unit="img",
        leave=not nested,
        disable=hidden or (nested and not terminal),
        mininterval=0.1 if terminal else 30.0,
    )
