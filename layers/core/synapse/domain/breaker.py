"""A circuit breaker: who fails again and again is left alone for a while, then tried by one call.

    CLOSED → OPEN        failures in a row, or too large a share of the last calls
    OPEN → HALF_OPEN     its time is up; one call at a time goes through, on trial
    HALF_OPEN → CLOSED   it went well
    HALF_OPEN → OPEN     it did not, and the next time is twice as long

What a call shows counts for the breaker as it stood when the call began: those that began before
it opened tell nothing new, unless it opened for answers that were only late and theirs never came.
One that began while it is open (the pinger's do) is a trial as well.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class BreakerState(StrEnum):
    """Whether calls go through."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When a breaker opens and for how long.

    It opens after `in_a_row` failures, or where `share` of the last `window` calls failed, if
    there were `min_calls` of them within `window_s`. It stays open for `open_s`, twice as long
    each time it opens again within `calm_s` of having closed, at most `max_open_s`. A trial that
    does not end within `trial_s` makes way for another.
    """

    in_a_row: int = 3
    share: float = 0.5
    window: int = 20
    min_calls: int = 10
    window_s: float = 30.0
    open_s: float = 1.0
    max_open_s: float = 10.0
    calm_s: float = 60.0
    trial_s: float = 30.0


class Ticket(NamedTuple):
    """Of a call that began: how often the breaker had opened, and whether the call is on trial."""

    openings: int
    is_trial: bool


class Breaker:
    """One breaker; all times are seconds of any clock that does not go back."""

    __slots__ = (
        "_closed_at",
        "_last",
        "_open_for_s",
        "_opened_at",
        "_openings",
        "_policy",
        "_trial_until",
        "failures_in_a_row",
        "is_mild",
    )

    def __init__(self, policy: BreakerPolicy | None = None) -> None:
        self._policy = policy or BreakerPolicy()
        self._last: deque[tuple[float, bool]] = deque(maxlen=self._policy.window)
        self._openings = 0
        self._opened_at: float | None = None
        self._open_for_s = 0.0
        self._closed_at = float("-inf")
        self._trial_until = float("-inf")
        self.failures_in_a_row = 0
        self.is_mild = False
        """Whether there was an answer each time: much too late, or a refusal without a reason.

        A call on trial decides alone: whatever was before, a worker that answers late answers.
        """

    @property
    def is_closed(self) -> bool:
        """Whether all calls go through."""
        return self._opened_at is None

    def state(self, now: float) -> BreakerState:
        """Where it stands."""
        if self._opened_at is None:
            return BreakerState.CLOSED
        if now < self._opened_at + self._open_for_s:
            return BreakerState.OPEN
        return BreakerState.HALF_OPEN

    def lets_through(self, now: float) -> bool:
        """Whether a call may go through; when half open, only while no other is on trial."""
        if self._opened_at is None:
            return True
        return now >= self._opened_at + self._open_for_s and now >= self._trial_until

    def began(self, now: float) -> Ticket:
        """Note that a call begins; what becomes of it is told with the ticket."""
        is_trial = self._opened_at is not None
        if is_trial and now >= self._trial_until:
            self._trial_until = now + self._policy.trial_s
        return Ticket(self._openings, is_trial)

    def succeeded(self, ticket: Ticket, now: float) -> None:
        """The call went well."""
        if ticket.openings != self._openings:
            return
        self.failures_in_a_row = 0
        if self._opened_at is not None:
            self._close(now)
        self._last.append((now, True))

    def failed(
        self, ticket: Ticket, now: float, *, mild: bool = False, answered: bool = False
    ) -> None:
        """The call failed.

        `mild` if that may be no fault of the worker, or its answer was not what one hopes for;
        `answered` if there was one.
        """
        if ticket.openings != self._openings and (mild or not self._is_news(ticket)):
            return
        decides = self.failures_in_a_row == 0 or (answered and self._opened_at is not None)
        self.is_mild = mild and (self.is_mild or decides)
        self.failures_in_a_row += 1
        self._last.append((now, False))
        if self._opened_at is not None or self._is_enough(now):
            self._open(now)

    def _is_news(self, ticket: Ticket) -> bool:
        """Whether a failure of a call from before the last opening is worse than what opened it."""
        is_of_the_last = ticket.openings == self._openings - 1
        return is_of_the_last and self.is_mild and self._opened_at is not None

    def dropped(self, ticket: Ticket) -> None:
        """The call ended without showing anything: its caller went away."""
        if ticket.is_trial and ticket.openings == self._openings:
            self._trial_until = float("-inf")

    def _is_enough(self, now: float) -> bool:
        policy = self._policy
        if self.failures_in_a_row >= policy.in_a_row:
            return True
        lately = [went_well for at, went_well in self._last if at > now - policy.window_s]
        failures = lately.count(False)
        return len(lately) >= policy.min_calls and failures >= policy.share * len(lately)

    def _open(self, now: float) -> None:
        policy = self._policy
        again = self._opened_at is not None or now < self._closed_at + policy.calm_s
        doubled_s = min(policy.max_open_s, 2 * self._open_for_s)
        self._open_for_s = doubled_s if again and self._open_for_s else policy.open_s
        self._opened_at = now
        self._openings += 1
        self._trial_until = float("-inf")
        self._last.clear()

    def _close(self, now: float) -> None:
        self._opened_at = None
        self._closed_at = now
        self._trial_until = float("-inf")
        self.is_mild = False
        self._last.clear()
