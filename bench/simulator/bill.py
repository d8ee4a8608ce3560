"""Adds up what the services around the workers bill."""

from __future__ import annotations

from dataclasses import dataclass, field

from synapse.domain.cost import Bill


@dataclass(slots=True)
class Meter:
    """What was billed up to now."""

    bill: Bill = field(default_factory=Bill)

    def add(self, bill: Bill) -> None:
        """So much more."""
        self.bill += bill
