"""Time on the processor: what stays comparable while other programs want the same cores."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from synapse_worker.stubs import children

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
USER, SYSTEM = 11, 12
"""Places in /proc/PID/stat, counted from behind the command's name."""


def processor_s(pid: int) -> float:
    """Seconds that a process and all its descendants have spent so far; those alive count."""
    return sum(own_s(each) for each in family(pid))


def readings(pids: Iterable[int]) -> dict[int, float]:
    """What each of these processes has spent so far, in seconds; none of those that are gone."""
    found = {}
    for pid in pids:
        try:
            found[pid] = own_s(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def spent_s(before: Mapping[int, float], after: Mapping[int, float]) -> float:
    """Seconds between two readings; what ended between them is not known and not counted."""
    return sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items())


def family(pid: int) -> list[int]:
    """A process and all its descendants that are there at the moment."""
    members = [pid]
    for member in members:  # grows while it is read
        members += children(member)
    return members


def own_s(pid: int) -> float:
    """Seconds that one process has spent so far, without its descendants.

    Raises:
        FileNotFoundError, ProcessLookupError: it is gone.
    """
    return _seconds(Path(f"/proc/{pid}/stat"))


def first_thread_s(pid: int) -> float:
    """Seconds that a process's first thread has spent so far: that of an event loop.

    Raises:
        FileNotFoundError, ProcessLookupError: it is gone.
    """
    return _seconds(Path(f"/proc/{pid}/task/{pid}/stat"))


def _seconds(stat: Path) -> float:
    fields = stat.read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[USER]) + int(fields[SYSTEM])) / TICKS_PER_S
