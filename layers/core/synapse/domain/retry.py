"""When to try again: exponential backoff with full jitter.

Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015; Step Functions'
`JitterStrategy: FULL` is the same rule, so both targets wait alike.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_DOUBLINGS = 64
"""Beyond any ceiling, and short of what a float holds."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """At most `max_attempts` tries in all, waiting up to base, 2·base, 4·base … ≤ max between."""

    max_attempts: int = 4
    base_s: float = 0.5
    max_s: float = 10.0

    def delay_s(self, failures: int, uniform: float) -> float:
        """The wait after the `failures`-th failure (from 1); `uniform` is a draw from [0, 1)."""
        ceiling = min(self.max_s, self.base_s * 2.0 ** min(failures - 1, MAX_DOUBLINGS))
        return float(uniform * ceiling)
