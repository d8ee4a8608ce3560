"""From when on one call is slow, or late: by its size, its company, and what others took lately."""

from __future__ import annotations

from synapse.application.patience import Patience
from synapse.application.vitals import PoolVitals
from synapse.domain.expectation import Work, first_ms, whole_ms
from synapse.domain.profile import Profile

FRESH_S = 0.1
"""For how long what was found out for one call is good for others."""


class Lateness:
    """What is expected of a call that began among `in_flight` items, itself counted.

    `work` is that of one of its items. Held against are `first` parts if it streams, else whole
    answers; `factor` is from how many times what is expected on it is slow, None where nothing
    tells: right after a start, or after a quiet minute.
    """

    __slots__ = (
        "_in_flight",
        "_patience",
        "_profile",
        "_profiled_at",
        "_slots",
        "_streams",
        "_usual",
        "_vitals",
        "_work",
        "factor",
    )

    def __init__(
        self,
        work: Work,
        slots: int,
        in_flight: int,
        profile: Profile | None,
        vitals: PoolVitals,
        patience: Patience,
        now: float,
        *,
        streams: bool,
    ) -> None:
        self._work, self._slots, self._in_flight = work, slots, in_flight
        self._profile, self._vitals, self._patience = profile, vitals, patience
        self._streams = streams
        self._profiled_at = vitals.profiled_at
        self.factor: float | None = None
        self._usual: float | None = None
        self.tells(now)

    def tells(self, now: float) -> bool:
        """Whether it can be told by now; where nothing did, others may have been answered since."""
        if self.factor is None and self._vitals.profiled_at == self._profiled_at:
            self.factor = self._slow_factor(now)
            self._usual = self._usual_company(now)
        return self.factor is not None

    def expected_ms(self, work: Work, *, is_first: bool, in_flight: int | None = None) -> float:
        """For so much work, among as many items as at its beginning unless something else is said.

        In units of no meaning where there is no profile (`domain.expectation`).
        """
        expected = first_ms if is_first else whole_ms
        return max(1e-6, expected(self._profile, work, in_flight or self._in_flight, self._slots))

    def is_slow(self, took_s: float, written: int) -> bool:
        """Whether an answer of that length should have come sooner, or its first part."""
        if self.factor is None or took_s < self._patience.min_slow_s:
            return False
        work = Work(self._work.prompt_tokens, written or self._work.output_tokens)
        return took_s * 1000 >= self.factor * self.expected_ms(work, is_first=self._streams)

    def late_after_s(self, most: int) -> float:
        """How long it may be silent: by the most items there were, perhaps of later calls.

        Where no profile tells what company costs, of generations more of it than usual may cost as
        much more: slots that share a processor take turns. Where nothing tells: as long as any.
        """
        if self.factor is None:
            return self._patience.min_late_s
        expected_ms = self.expected_ms(self._work, is_first=self._streams, in_flight=most)
        if self._usual is not None:
            expected_ms *= max(1.0, min(most, self._slots) / self._usual)
        return max(self._patience.min_late_s, self.factor * expected_ms / 1000)

    def _usual_company(self, now: float) -> float | None:
        """The median of the most items that were in slots during the calls that were measured.

        None where they do not tell what company costs: a profile does, or nothing is generated.
        """
        if self._profile is not None or self._work.output_tokens == 0:
            return None
        company = self._vitals.company.quantiles(now)
        return None if company is None else company.p50

    def _slow_factor(self, now: float) -> float | None:
        known = self._vitals.patience.get(self._streams)
        if known is not None and now - known[0] < FRESH_S:
            return known[1]
        latencies = self._vitals.first if self._streams else self._vitals.whole
        spread = None if self._profile is None else self._profile.spread
        if self._profile is not None and self._streams:
            spread = self._profile.first_spread or spread
        factor = self._patience.factor(latencies.quantiles(now), spread)
        if factor is not None:
            self._vitals.patience[self._streams] = (now, factor)
        return factor
