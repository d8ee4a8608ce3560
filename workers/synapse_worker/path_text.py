"""Paths and their texts where Python takes them for ASCII, as in the stub of Triton's backend.

It embeds an interpreter without a locale, to which each byte of a path that is not ASCII is half a
surrogate pair: files are found by it, but it is no text that another library could be given.
Elsewhere both functions change nothing.
"""

import os
import re
from pathlib import Path

ESCAPED = re.compile("[\udc80-\udcff]+")
"""Bytes that Python could not read as characters."""


def path_of(text: str) -> Path:
    """The path that a text names, as this interpreter has it."""
    return Path(os.fsdecode(text.encode("utf-8", "surrogateescape")))


def text_of(path: Path | str) -> str:
    """What a library that wants a text is given of a path."""
    return os.fspath(path).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def printable(text: str) -> str:
    """A text with paths in it, as people read it."""
    return ESCAPED.sub(lambda found: text_of(found[0]), text)
