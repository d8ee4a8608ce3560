"""Time on the processor: what stays comparable while other programs want the same cores."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
USER, SYSTEM = 11, 12
"""Places in /proc/PID/stat, counted from behind the command's name."""


def processor_s(pid: int) -> float:
    """Seconds that a process and all its descendants have spent so far; those alive count."""
    return sum(_own_s(each) for each in _family(pid))


def _family(pid: int) -> list[int]:
    family = [pid]
    for member in family:  # grows while it is read
        for listing in Path(f"/proc/{member}/task").glob("*/children"):
            # A thread may end between being listed and being read.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                family += map(int, listing.read_text(encoding="utf-8").split())
    return family


def _own_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[USER]) + int(fields[SYSTEM])) / TICKS_PER_S
