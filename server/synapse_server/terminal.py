"""What commands say: their answers to standard output, everything else to standard error."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their head, in columns."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())  # noqa: T201 - the command's own answer


def tell(text: str) -> None:
    """Say something to who reads along."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - for who reads along


def moment(seconds: float) -> str:
    """A time since the epoch as people read it, UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
