"""What was asked and what came of it: counts, and of each fault its shortest example."""

from __future__ import annotations

import re
import threading
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

MAX_EXAMPLE_CHARS = 3_000
REPEATED = re.compile(r"(.{1,8}?)\1{20,}", re.DOTALL)


@dataclass
class Fault:
    """How often something was wrong in one way, and the least that shows it."""

    count: int = 0
    example: str = ""

    def shown(self) -> str:
        """The example, with what it repeats told once."""
        text = REPEATED.sub(lambda run: f"{run[1]}…×{len(run[0]) // len(run[1])}…", self.example)
        return text[:MAX_EXAMPLE_CHARS]


@dataclass
class Record:
    """Filled by several threads at once."""

    inputs: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    by_route: defaultdict[tuple[str, str], Counter[int]] = field(
        default_factory=lambda: defaultdict(Counter)
    )
    faults: dict[str, Fault] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def total(self) -> int:
        """All inputs so far."""
        return self.inputs.total()

    def asked(self, part: str, route: tuple[str, str] | None = None, status: int = 0) -> None:
        """An input of that part of the fuzzer, and what it was answered (0: nothing)."""
        with self._lock:
            self.inputs[part] += 1
            self.statuses[status] += 1
            if route is not None:
                self.by_route[route][status] += 1

    def wrong(self, where: str, faults: Sequence[str], example: str) -> None:
        """That input broke these rules."""
        with self._lock:
            for fault in faults:
                known = self.faults.setdefault(f"{where}: {fault}", Fault())
                known.count += 1
                if not known.example or len(example) < len(known.example):
                    known.example = example
