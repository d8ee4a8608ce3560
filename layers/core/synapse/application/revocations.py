"""What a key has begun that was revoked together with that: nothing more of it is run."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from synapse.domain.errors import Unavailable
from synapse.domain.job import Failure, Job, JobState, Outcome
from synapse.domain.sweep import EXPIRED
from synapse.ports import Clock, KeyStore

logger = logging.getLogger(__name__)

KEY_REVOKED = Failure("key_revoked", "the key it was sent with was revoked, and its jobs with it")

FRESH_S = 2.0
MAX_KEPT = 1000
"""Of so many accounts it is kept for `fresh_s` how they stand."""


@dataclass(frozen=True, slots=True)
class Revocations:
    """Tells which accounts were stopped. Each is looked up at most every `fresh_s`."""

    keys: KeyStore
    clock: Clock
    fresh_s: float = FRESH_S
    _kept: dict[tuple[str, str], tuple[float, bool]] = field(default_factory=dict)

    async def are_stopped(self, tenant: str, account: str) -> bool:
        """Whether nothing more is to be run for an account. Raises nothing.

        Users, and whoever bears a token, have no key of ours: they are never stopped. Nobody is
        stopped because it cannot be told either.
        """
        now, who = self.clock(), (tenant, account)
        at, stopped = self._kept.get(who, (-self.fresh_s, False))
        if stopped or 0 <= now - at < self.fresh_s:
            return stopped
        try:
            key = await self.keys.get(account) if account else None
        except Unavailable as error:
            logger.warning("not known whether a key is revoked: %s", error.message)
            return False
        stopped = key is not None and key.tenant == tenant and key.stops_at is not None
        self._kept.pop(who, None)
        self._kept[who] = (now, stopped)
        while len(self._kept) > MAX_KEPT:
            del self._kept[next(iter(self._kept))]
        return stopped


async def end_unrun(job: Job, now: float, revocations: Revocations | None) -> Outcome | None:
    """How a job ends that no engine is to be asked for any more; None if one is."""
    if job.deadline_at <= now:
        return Outcome(job.id, JobState.EXPIRED, failure=EXPIRED, unrun=True)
    if revocations is not None and await revocations.are_stopped(job.tenant, job.account):
        return Outcome(job.id, JobState.FAILED, failure=KEY_REVOKED, unrun=True)
    return None
