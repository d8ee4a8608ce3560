"""Adds up what the services around the workers bill, and how often what was done for it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from synapse.domain.cost import Bill


@dataclass(slots=True)
class Meter:
    """What was billed up to now."""

    bill: Bill = field(default_factory=Bill)
    done: Counter[str] = field(default_factory=Counter)
    """How often: `looks` of the dispatcher at a job, its `invocations`, `tries` of batches …"""

    def add(self, bill: Bill) -> None:
        """So much more."""
        self.bill += bill

    def count(self, what: str, times: int = 1) -> None:
        """It was done so many times more."""
        self.done[what] += times
