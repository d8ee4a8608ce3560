"""Which worker of a pool takes a request."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Protocol

from synapse.application.roster import Roster
from synapse.application.vitals import Vitals
from synapse.domain.affinity import Option, chosen
from synapse.domain.breaker import Breaker
from synapse.domain.errors import EngineUnavailable
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.domain.worker import Worker

WELL, SHAKEN, ON_TRIAL, DOUBTFUL, RISKY = range(5)
"""Ranks of workers: one on trial or in doubt is asked only where nobody who is well is left.

To who is wary one that failed when it was last asked is shaken, which may have been no fault of its
own, and one that failed until it was put on trial is a risk.
"""

NEVER_BUSY_SHARE = 4
"""A worker with a quarter of its slots taken is not too busy for those who know it."""

MAX_PLACED = 1024


class Place(Protocol):
    """Which worker of a pool is asked for the sake of an affinity. Raises EngineUnavailable."""

    async def __call__(
        self, spec: ModelSpec, pool: Pool, affinity: str = "", *, wary: bool = False
    ) -> Pool: ...


async def only_worker(
    spec: ModelSpec, pool: Pool, affinity: str = "", *, wary: bool = False
) -> Pool:
    """That of a pool that has but one."""
    return pool


class Placement:
    """Chooses among the workers that are alive, have the model and are not failing."""

    def __init__(self, roster: Roster, vitals: Vitals) -> None:
        self._roster = roster
        self._vitals = vitals
        self._placed: dict[tuple[str, str], tuple[Pool, Pool]] = {}
        # Where several are equal each is taken in its turn; processes begin with different ones.
        self._turn = random.randrange(1 << 16)

    async def place(
        self,
        spec: ModelSpec,
        pool: Pool,
        affinity: str = "",
        avoid: Collection[str] = (),
        *,
        wary: bool = False,
    ) -> Pool:
        """The pool with the endpoint and the id of the worker that is to be asked.

        Workers in `avoid` are left out: they have just failed with this very request. `wary` is
        for what was lost with a worker before: another loss would be held against it, so those
        that failed when they were last asked come after those that did not, and a worker that
        answers late before one of which nobody knows yet whether it answers again.

        Raises:
            EngineUnavailable: there is no such worker at present.
        """
        if pool.is_fixed:
            return self._fixed(spec, pool, avoid)
        crew = await self._roster.crew(spec.name, pool.name)
        if not crew.ready:
            raise EngineUnavailable(nobody_up(pool, crew.starting))
        options = self._options(spec, pool, crew.ready, avoid, wary)
        if not options:
            raise EngineUnavailable(f"every worker of pool {pool.name!r} is failing")
        if len(options) == 1:
            return self._at(pool, options[0][1])
        self._turn += 1
        start = self._turn % len(options)
        never_busy = pool.slots_of(spec) // NEVER_BUSY_SHARE
        turned = [*options[start:], *options[:start]]
        choice = chosen([option for option, _ in turned], affinity, never_busy)
        return self._at(pool, next(worker for option, worker in turned if option is choice))

    def _options(
        self,
        spec: ModelSpec,
        pool: Pool,
        workers: Sequence[Worker],
        avoid: Collection[str],
        wary: bool,
    ) -> list[tuple[Option, Worker]]:
        now, vitals = self._vitals.clock(), self._vitals
        options = []
        for worker in workers:
            if worker.id in avoid:
                continue
            breaker = vitals.breaker(spec.name, pool.name, worker.id)
            rank = _wary_rank(breaker, now) if wary else rank_of(breaker, now)
            if rank is not None:
                # Who fails fast is never busy: its failures count as work, or all would go there.
                busy = vitals.outstanding[pool.name, worker.id] + breaker.failures_in_a_row
                options.append((Option(worker.id, rank, busy), worker))
        return options

    def _fixed(self, spec: ModelSpec, pool: Pool, avoid: Collection[str]) -> Pool:
        breaker = self._vitals.breaker_of(spec.name, pool)
        if "" in avoid or rank_of(breaker, self._vitals.clock()) is None:
            raise EngineUnavailable(f"the worker of pool {pool.name!r} is failing")
        return pool

    def _at(self, pool: Pool, worker: Worker) -> Pool:
        known = self._placed.get((pool.name, worker.id))
        if known is not None and known[0] is pool and known[1].endpoint == worker.endpoint:
            return known[1]
        placed = replace(pool, endpoint=worker.endpoint, worker=worker.id)
        if len(self._placed) >= MAX_PLACED:
            self._placed.clear()
        self._placed[pool.name, worker.id] = (pool, placed)
        return placed


def rank_of(breaker: Breaker, now: float) -> int | None:
    """In which turn a worker is asked; None for not at all."""
    if breaker.is_closed:
        return WELL
    if breaker.lets_through(now):
        return ON_TRIAL
    # A late answer is better than none, and who refuses may be right.
    return DOUBTFUL if breaker.is_mild else None


def _wary_rank(breaker: Breaker, now: float) -> int | None:
    rank = rank_of(breaker, now)
    if rank == WELL and breaker.failures_in_a_row:
        return SHAKEN
    if rank == ON_TRIAL and not breaker.is_mild:
        return RISKY
    return rank


def nobody_up(pool: Pool, starting: int) -> str:
    """Why nobody of a pool takes a request."""
    if starting:
        return f"the workers of pool {pool.name!r} are starting"
    return f"pool {pool.name!r} has no worker for the model"
