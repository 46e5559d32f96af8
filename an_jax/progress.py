"""Progress bars with rate and ETA."""

import sys

from tqdm import tqdm


def progress_bar(
    total: int, title: str, *, initial: int = 0, nested: bool = False, hidden: bool = False
) -> tqdm:
    """Returns a bar that counts images. In a log file it prints two lines a minute.

    Args:
        total: number of images.
        title: text before the bar.
        initial: number of images done before.
        nested: whether it is below another bar. It then disappears when full, and is not printed
            in a log file.
        hidden: whether to print nothing, because another process does.
    """
    is_terminal = sys.stderr.isatty()
    return tqdm(
        total=total,
        initial=initial,
        desc=title,
        unit="img",
        leave=not nested,
        disable=hidden or (nested and not is_terminal),
        mininterval=0.1 if is_terminal else 30.0,
    )
