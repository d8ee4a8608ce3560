"""An engine whose every answer is decided beforehand, and which outlives nobody's patience."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextvars import ContextVar
from enum import StrEnum

from synapse.domain.errors import (
    EngineError,
    EngineLost,
    EngineTimeout,
    EngineUnavailable,
    InvalidInput,
)
from synapse.domain.inference import Result
from synapse.domain.job import JobId
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.ports import InferenceRequest
from tests.fakes import FakeClock, echoed

LATE_S = 700.0
"""Longer than a lease."""

RUNNER: ContextVar[asyncio.Task[None]] = ContextVar("RUNNER")
"""The runner's process, so to speak, in which an engine is asked."""


class Fate(StrEnum):
    """What comes of one request to an engine."""

    ECHO = "echo"
    LATE = "after the lease is over"
    HELD = "when it is woken, whatever has happened by then"
    SILENT = "the answer is lost"
    UNAVAILABLE = "not taken"
    LOST = "the worker goes down"
    TIMEOUT = "out of time"
    REFUSED = "invalid"
    DIES = "the runner dies"


ERRORS = {
    Fate.UNAVAILABLE: EngineUnavailable,
    Fate.LOST: EngineLost,
    Fate.TIMEOUT: EngineTimeout,
    Fate.REFUSED: InvalidInput,
}


class FatedEngine:
    """See the port `InferenceEngine`. `told` are the errors that were answered for each job.

    `cut_off` counts what was answered in runners that died: they may have told nobody of it.
    """

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.fates: list[Fate] = []
        self.told: defaultdict[JobId, set[str]] = defaultdict(set)
        self.held: dict[asyncio.Task[None], list[asyncio.Event]] = {}
        self.deaths = self.cut_off = 0
        self._answered: Counter[asyncio.Task[None]] = Counter()

    async def infer(
        self, model: ModelSpec, pool: Pool, requests: Sequence[InferenceRequest]
    ) -> AsyncGenerator[tuple[JobId, Result | EngineError], None]:
        for request in requests:
            fate = self.fates.pop(0) if self.fates else Fate.ECHO
            self._answered[RUNNER.get()] += 1
            if fate in ERRORS:
                error = ERRORS[fate]("as it was fated")
                self.told[request.id].add(error.code)
                yield request.id, error
                continue
            if fate is Fate.DIES:
                await self._die()
            elif fate is Fate.LATE:
                self._clock.advance(LATE_S)
            elif fate is Fate.HELD:
                await self._hold()
            if fate is not Fate.SILENT:
                yield request.id, echoed(request)

    async def _hold(self) -> None:
        woken = asyncio.Event()
        self.held.setdefault(RUNNER.get(), []).append(woken)
        await woken.wait()

    async def _die(self) -> None:
        self.has_died(RUNNER.get())
        RUNNER.get().cancel()
        await asyncio.Event().wait()

    def has_died(self, runner: asyncio.Task[None]) -> None:
        """Count a death, and what it cut off."""
        self.deaths += 1
        self.cut_off += self._answered.pop(runner, 0)

    def wake(self, runner: asyncio.Task[None]) -> None:
        """Let all go on that is held in a runner."""
        for woken in self.held.pop(runner, []):
            woken.set()
