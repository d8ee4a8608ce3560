"""What company does to the better tiers of a pool, as things stand (`domain.window`)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from synapse.application.routing import TYPICAL_OUTPUT_TOKENS
from synapse.application.vitals import Vitals
from synapse.domain.expectation import Work, first_ms, whole_ms
from synapse.domain.job import SlaTier
from synapse.domain.model import ModelSpec, Task
from synapse.domain.pool import Pool
from synapse.domain.prediction import UNKNOWN_SPREAD, Live, predicted, slot_ms
from synapse.domain.profile import Profile
from synapse.domain.routing import TIER_P99_MS
from synapse.domain.window import Company, Traffic, company_of, turns_over
from synapse.ports import Clock, ProfileStore, Registry

FRESH_S = 0.5
"""How old what is known may be: every batch of bronze asks for it."""

TYPICAL_PROMPT_TOKENS = 128

MIN_SAMPLES = 50
"""Fewer answers do not tell what comes to a hundredth of them."""


@dataclass(frozen=True, slots=True)
class Companies:
    """The company of all pools: told by their profiles, and by what calls took in the last minute.

    `clock` is that of the registry; calls are timed by that of the vitals.
    """

    registry: Registry
    profiles: ProfileStore
    vitals: Vitals
    clock: Clock
    _known: dict[tuple[str, str, SlaTier], tuple[float, Company]] = field(default_factory=dict)

    async def of(self, spec: ModelSpec, pool: Pool, traffic: Traffic, ready: int) -> Company:
        """What company does there, on one of so many workers, to the best tier seen lately.

        Raises:
            Unavailable: the profile, or how long items last, could not be read.
        """
        key, now = (spec.name, pool.name, traffic.best), self.clock()
        known = self._known.get(key)
        if known is not None and 0 <= now - known[0] < FRESH_S:
            return known[1]
        profile = await self.profiles.profile(spec.name, spec.version, pool.name)
        if profile is None:
            rate = await self.registry.service_rate(spec.name, now, pool.name)
            mean_ms = slot_ms(rate.of_items(spec.task).seconds_per_item)
            company = self._unprofiled(spec, pool, mean_ms, traffic, ready)
        else:
            company = self._profiled(spec, pool, profile, traffic.best)
        self._known[key] = (now, company)
        return company

    def _unprofiled(
        self, spec: ModelSpec, pool: Pool, mean_ms: float | None, traffic: Traffic, ready: int
    ) -> Company:
        """By the times of whole answers, and of generations by how crowded first tokens came."""
        own = math.ceil(traffic.wanted / max(1, ready))
        most = self._not_too_crowded(spec, pool, traffic.best, own)
        if mean_ms is None:
            return Company(most=most)
        promise_ms = TIER_P99_MS[traffic.best]
        at_stake = self._at_stake(spec, pool, mean_ms, promise_ms)
        may_wait = turns_over(at_stake, UNKNOWN_SPREAD * mean_ms, mean_ms, promise_ms)
        return Company(may_wait, most, is_brief=mean_ms <= promise_ms)

    def _not_too_crowded(self, spec: ModelSpec, pool: Pool, best: SlaTier, own: int) -> int | None:
        """On a worker where better tiers are likely to want `own` slots.

        Gold that is answered too late even alone is held to silver's promise.
        """
        if spec.task is not Task.GENERATE:
            return None
        crowding, now = self.vitals.pool(spec.name, pool.name).crowding, self.vitals.clock()
        gold = None
        if best is SlaTier.GOLD:
            gold = crowding.most(now, TIER_P99_MS[SlaTier.GOLD], own)
        return gold or crowding.most(now, TIER_P99_MS[SlaTier.SILVER], own)

    def _profiled(self, spec: ModelSpec, pool: Pool, profile: Profile, best: SlaTier) -> Company:
        """By the profile, as far as the last minute did not tell otherwise.

        Gold that is answered too late even alone is held to silver's promise.
        """
        generates, slots = spec.task is Task.GENERATE, pool.slots_of(spec)
        live = self.vitals.pool(spec.name, pool.name).live(self.vitals.clock())
        work = self._typical_work(spec, pool)
        p50_ms = (first_ms if generates else whole_ms)(profile, work, 1, slots)
        promise_ms = TIER_P99_MS[best]
        if p50_ms > promise_ms:
            promise_ms = TIER_P99_MS[SlaTier.SILVER]
        p99_ms = _p99_ms(profile, work, live, slots, generates=generates)
        slower = 1.0 if live.whole is None else live.whole.p50
        holds_ms = slower * whole_ms(profile, work, slots, slots)
        at_stake = self._at_stake(spec, pool, holds_ms, promise_ms)
        if turns_over(at_stake, p99_ms(slots), holds_ms, promise_ms):
            return Company(turns_over=True)
        company = company_of(p99_ms, p50_ms, slots, promise_ms)
        lasts_ms = slower * whole_ms(profile, work, company.most or slots, slots)
        return replace(company, is_brief=lasts_ms <= promise_ms)

    def _typical_work(self, spec: ModelSpec, pool: Pool) -> Work:
        """The work of one item of the better tiers.

        What they have to read is what they had lately, at the median: longer prompts than theirs
        would say of promises that they are not to be kept.
        """
        to_read = self.vitals.pool(spec.name, pool.name).to_read
        lately = to_read.quantiles(self.vitals.clock())
        prompt_tokens = TYPICAL_PROMPT_TOKENS if lately is None else round(lately.p50)
        return Work(prompt_tokens, TYPICAL_OUTPUT_TOKENS if spec.task is Task.GENERATE else 0)

    def _at_stake(
        self, spec: ModelSpec, pool: Pool, holds_ms: float, promise_ms: float
    ) -> float | None:
        """The share of answers lately that a wait for a slot would have made late.

        On the average it lasts half as long as an item, even where all of them begin together.
        None where that is not known: too few were seen, or the promise is about a part of them.
        """
        vitals = self.vitals
        if spec.task is Task.GENERATE:
            return None
        took_ms, now = vitals.pool(spec.name, pool.name).took_ms, vitals.clock()
        if took_ms.count(now) < MIN_SAMPLES:
            return None
        return took_ms.share(now, promise_ms - holds_ms / 2, promise_ms)


def _p99_ms(
    profile: Profile, work: Work, live: Live, slots: int, *, generates: bool
) -> Callable[[int], float]:
    """When a promise to one item is kept, at the 99th percentile, by the items in flight."""

    def among(in_flight: int) -> float:
        prediction = predicted(
            work.prompt_tokens,
            work.output_tokens,
            items=1,
            ahead=in_flight - 1,
            workers=1,
            slots=slots,
            start_ms=0.0,
            profile=profile,
            seconds_per_item=None,
            live=live,
        )
        assert prediction is not None, "a profile predicts"
        return prediction.first_p99_ms if generates else prediction.whole_p99_ms

    return among
