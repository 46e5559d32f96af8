"""Text as users save it: with or without a byte order mark, with composed or decomposed letters."""

import unicodedata

from an_jax.data.tf_on_cpu import tf


def read_text(path: str) -> str:
    """Reads a UTF-8 file, local or gs://, without its byte order mark.

    Raises:
        UnicodeDecodeError: it has another encoding.
        tf.errors.OpError: it cannot be read.
    """
    with tf.io.gfile.GFile(path, "rb") as file:
        return file.read().decode("utf-8-sig")


def compose(name: str) -> str:
    """Returns the name in Unicode's composed form (NFC); macOS stores names decomposed."""
    return unicodedata.normalize("NFC", name)
