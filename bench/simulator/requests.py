"""What is asked of the system, and what became of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from synapse.domain.job import SlaTier


class End(StrEnum):
    """How a request ended."""

    DELIVERED = "delivered"
    REFUSED = "refused"
    """At once, because it would not be answered in time."""
    EXPIRED = "expired"
    """It was not answered within its time."""


@dataclass(slots=True)
class Request:
    """One request, from its arrival at the API to its end; `front_s` is what comes before."""

    number: int
    model: str
    tier: SlaTier
    arrived_at: float
    score: float
    """Its size, as a standard normal score: it is as large for its kind wherever it runs."""
    timeout_s: float = 600.0
    front_s: float = 0.0
    ended: Callable[[Request], None] | None = None
    was_cold: bool = False
    pool: str = ""
    end: End | None = None
    ended_at: float = 0.0

    def finish(self, end: End, now: float) -> None:
        """It ends here and now; what is delivered when nobody waits any more has expired.

        Raises:
            AssertionError: it had ended already.
        """
        assert self.end is None, f"request {self.number} ends twice"
        is_late = end is End.DELIVERED and now - self.arrived_at > self.timeout_s
        self.end, self.ended_at = End.EXPIRED if is_late else end, now
        if self.ended is not None:
            self.ended(self)

    @property
    def took_s(self) -> float:
        """From the API to its answer."""
        return self.ended_at - self.arrived_at
