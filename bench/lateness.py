"""How late the machine itself is: a process that does nothing but wake up on time.

Beside a measurement it tells how much of its scatter is of the machine: how late timers were, and
the processor time that others took. Run as a process of its own: `python -m bench.lateness`.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from bench.client import percentile
from bench.processor import TICKS_PER_S, processor_s

EVERY_S = 0.005
BUSY = (0, 1, 2, 5, 6)
"""Places in the first line of /proc/stat: user, nice, system and both kinds of interrupts."""
STEAL = 7


@dataclass(frozen=True, slots=True)
class Lateness:
    """Of a span of time: timers' lateness, and cores that other programs and machines took.

    `stolen` is what the host of a virtual machine says that it gave to others.
    """

    p50_ms: float
    p99_ms: float
    others: float
    stolen: float


@contextlib.contextmanager
def watch() -> Iterator[Callable[[], Lateness]]:
    """Call it for what was since the last call."""
    command = [sys.executable, "-m", "bench.lateness"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdin is not None
    assert process.stdout is not None
    asked, answers = process.stdin, process.stdout
    before = _Processors.now()

    def since() -> Lateness:
        nonlocal before
        asked.write("\n")
        late_ms = json.loads(answers.readline())
        now, then = _Processors.now(), before
        before = now
        elapsed_s = now.at - then.at
        stolen_s, others_s = now.stolen_s - then.stolen_s, now.others_s - then.others_s
        return Lateness(
            percentile(late_ms, 0.5),
            percentile(late_ms, 0.99),
            max(0.0, others_s / elapsed_s),
            stolen_s / elapsed_s,
        )

    with process:
        try:
            yield since
        finally:
            process.kill()


@dataclass(frozen=True, slots=True)
class _Processors:
    """Seconds up to a moment, over all cores; `others_s` is what is not this program's."""

    at: float
    others_s: float
    stolen_s: float

    @staticmethod
    def now() -> _Processors:
        first = Path("/proc/stat").read_text(encoding="utf-8").splitlines()[0].split()[1:]
        ticks = [int(each) for each in first]
        others_s = sum(ticks[place] for place in BUSY) / TICKS_PER_S - processor_s(os.getpid())
        return _Processors(time.monotonic(), others_s, ticks[STEAL] / TICKS_PER_S)


def main() -> None:
    """Each line that comes is answered by how late the wakings since the last one were, sorted."""
    late_ms: list[float] = []

    def sleep() -> None:
        while True:
            began = time.perf_counter()
            time.sleep(EVERY_S)
            late_ms.append((time.perf_counter() - began - EVERY_S) * 1000)

    Thread(target=sleep, daemon=True).start()
    for _ in sys.stdin:
        while not late_ms:
            time.sleep(EVERY_S)
        seen, late_ms[:] = sorted(late_ms), []
        print(json.dumps(seen), flush=True)


if __name__ == "__main__":
    main()
