"""What the machine itself did while something was measured: whether a figure is to be believed.

A tiny process of its own wakes every 5 ms and notes how late it was; the kernel tells what the
neighbours on the same hardware took (steal), and how busy the cores were in all.
"""

from __future__ import annotations

import json
import math
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

PERIOD_S = 0.005
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
USER, NICE, SYSTEM, STEAL = 0, 1, 2, 7
"""Places in the first line of /proc/stat, behind its name. What the kernel spends on interrupts is
left out: it is nobody's, and grows with the load."""


@dataclass(frozen=True, slots=True)
class Control:
    """The machine during a measurement.

    `stolen` is the share of the time that somebody wanted to compute in which a neighbour's machine
    had the processor; `late_ms` the 99th percentile of how late a timer of 5 ms was; `others_cores`
    how many cores other programs on this machine kept busy, `stolen_cores` how many neighbours had.
    """

    stolen: float
    late_ms: float
    others_cores: float
    stolen_cores: float

    @property
    def taken_cores(self) -> float:
        """Cores that others had, here or on the same hardware."""
        return self.others_cores + self.stolen_cores


@dataclass(frozen=True, slots=True)
class Ticks:
    """Of all cores together since the machine began: seconds of programs, and seconds stolen."""

    busy_s: float
    stolen_s: float

    @staticmethod
    def read(stat: Path = Path("/proc/stat")) -> Ticks:
        """Those of now."""
        line = stat.read_text(encoding="utf-8").splitlines()[0]
        ticks = [int(field) for field in line.split()[1:]]
        busy = ticks[USER] + ticks[NICE] + ticks[SYSTEM]
        return Ticks(busy / TICKS_PER_S, ticks[STEAL] / TICKS_PER_S)

    def stolen_since(self, before: Ticks) -> float:
        """The share of the time that somebody wanted to compute in which a neighbour did."""
        stolen_s = self.stolen_s - before.stolen_s
        wanted_s = self.busy_s - before.busy_s + stolen_s
        return stolen_s / wanted_s if wanted_s else 0.0


class Watch:
    """The tiny process, and what is read beside it. One measurement at a time."""

    def __enter__(self) -> Self:
        """Start it."""
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-E", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.begin()
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._process.communicate()

    def begin(self) -> None:
        """A measurement begins."""
        self._late_ms()
        self._ticks, self._at = Ticks.read(), time.perf_counter()

    def end(self, own_s: float) -> Control:
        """It has ended; `own_s` is what the measurement itself spent of the processor."""
        ticks, took_s = Ticks.read(), time.perf_counter() - self._at
        busy_s = ticks.busy_s - self._ticks.busy_s
        return Control(
            stolen=ticks.stolen_since(self._ticks),
            late_ms=self._late_ms(),
            others_cores=max(0.0, busy_s - own_s) / took_s,
            stolen_cores=(ticks.stolen_s - self._ticks.stolen_s) / took_s,
        )

    def _late_ms(self) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(json.loads(self._process.stdout.readline()))


def lateness_ms(late_s: Sequence[float]) -> float:
    """The 99th percentile in ms; 0 of nothing."""
    ordered = sorted(late_s)
    return 1000 * ordered[math.ceil(0.99 * len(ordered)) - 1] if ordered else 0.0


def main() -> None:
    """Answer each line on standard input with the lateness since the last one; end with it."""
    late_s: list[float] = []
    due = time.monotonic() + PERIOD_S
    while True:
        ready, _, _ = select.select([0], [], [], max(0.0, due - time.monotonic()))
        if not ready:
            # Ticks that a pause swallowed come one after the other, each as late as it is.
            late_s.append(max(0.0, time.monotonic() - due))
            due += PERIOD_S
        elif os.read(0, 1):
            print(json.dumps(lateness_ms(late_s)), flush=True)
            late_s.clear()
            due = time.monotonic() + PERIOD_S
        else:
            return


if __name__ == "__main__":
    main()
