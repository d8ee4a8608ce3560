"""Time on the processor: what stays comparable while other programs want the same cores."""

from __future__ import annotations

import os
from pathlib import Path

from synapse_worker.stubs import children

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
USER, SYSTEM = 11, 12
"""Places in /proc/PID/stat, counted from behind the command's name."""


def processor_s(pid: int) -> float:
    """Seconds that a process and all its descendants have spent so far; those alive count."""
    return sum(_own_s(each) for each in family(pid))


def family(pid: int) -> list[int]:
    """A process and all its descendants that are there at the moment."""
    members = [pid]
    for member in members:  # grows while it is read
        members += children(member)
    return members


def _own_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[USER]) + int(fields[SYSTEM])) / TICKS_PER_S
