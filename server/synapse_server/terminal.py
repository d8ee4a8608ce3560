"""What commands say: their answers to standard output, everything else to standard error."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their head, in columns; what cannot be shown in one is escaped."""
    rows = [[shown(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())  # noqa: T201 - the command's own answer


def write_no_more() -> None:
    """Give up standard output, to which Python would try to write the rest once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def shown(text: str) -> str:
    """A text of somebody else's in one line that steers no terminal."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def tell(text: str) -> None:
    """Say something to who reads along."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - for who reads along


def tell_of_new_folder(folder: Path) -> None:
    """Say that a data folder was made, and which server has what is in it.

    A command that is called in another directory than the server makes one that no server uses.
    """
    folder = folder.absolute()
    tell(
        f"made a new data folder {folder}; "
        f"a server uses it that starts with --data-dir {shlex.quote(str(folder))}"
    )


def moment(seconds: float) -> str:
    """A time since the epoch as people read it, UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
