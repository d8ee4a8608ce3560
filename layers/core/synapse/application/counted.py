"""An engine whose batches count as in flight: direct requests see them ahead, and bronze waits."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from synapse.application.windows import BronzeWindows
from synapse.domain.errors import EngineError, EngineUnavailable, Unavailable
from synapse.domain.inference import Result
from synapse.domain.job import JobId, SlaTier
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.ports import Clock, Entry, InferenceEngine, InferenceRequest, InFlight

logger = logging.getLogger(__name__)

NO_LIMIT = sys.maxsize
"""Jobs of the better tiers are never refused: they have waited already."""


@dataclass(frozen=True, slots=True)
class CountedEngine(InferenceEngine):
    """Counts each batch as a whole for as long as it runs; a count that fails stops no batch.

    Of bronze as many requests are begun as have room in its window; to the others no worker is
    available, so that they are tried again, elsewhere or later.
    """

    engine: InferenceEngine
    in_flight: InFlight
    windows: BronzeWindows
    clock: Clock

    async def infer(
        self, model: ModelSpec, pool: Pool, requests: Sequence[InferenceRequest]
    ) -> AsyncGenerator[tuple[JobId, Result | EngineError], None]:
        """See the port."""
        begun, entry = await self._enter(model, pool, requests)
        try:
            for request in requests[len(begun) :]:
                why = f"pool {pool.name!r} is kept for better tiers"
                yield request.id, EngineUnavailable(why)
            if begun:
                async with aclosing(self.engine.infer(model, pool, begun)) as outcomes:
                    async for outcome in outcomes:
                        yield outcome
        finally:
            if entry is not None:
                await self.in_flight.leave(entry)

    async def _enter(
        self, model: ModelSpec, pool: Pool, requests: Sequence[InferenceRequest]
    ) -> tuple[Sequence[InferenceRequest], Entry | None]:
        """The first of the requests, as many as may begin, and how they are counted."""
        if not requests:
            return requests, None
        try:
            limit = NO_LIMIT
            if requests[0].tier is SlaTier.BRONZE:
                limit = await self.windows.limit(model, pool, requests[0].input.samples)
                room = limit - await self.in_flight.count(model.name, pool.name)
                requests = _as_many_as_fit(requests, room)
            return await self._count(model, pool, requests, limit)
        except Unavailable as error:
            logger.warning("batch not counted: %s", error.message)
            return requests, None

    async def _count(
        self, model: ModelSpec, pool: Pool, requests: Sequence[InferenceRequest], limit: int
    ) -> tuple[Sequence[InferenceRequest], Entry | None]:
        if not requests:
            return (), None
        items = sum(request.input.samples for request in requests)
        expires_at = self.clock() + max(request.timeout_s for request in requests)
        entry = await self.in_flight.enter(
            model.name, pool.name, items, limit, expires_at, requests[0].tier
        )
        return ((), None) if entry is None else (requests, entry)


def _as_many_as_fit(requests: Sequence[InferenceRequest], room: int) -> Sequence[InferenceRequest]:
    items = 0
    for number, request in enumerate(requests):
        items += request.input.samples
        if items > room:
            return requests[:number]
    return requests
