"""Has workers of this machine load models that work waits for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from synapse.application.on_demand import load_of
from synapse.domain.loading import FailedLoad
from synapse.domain.pool import Pool
from synapse.domain.retry import RetryPolicy
from synapse.ports import Clock, StartTimes
from synapse_worker.agent.errors import NoRoom, NotNow, TooLarge
from synapse_worker.errors import WorkerError

logger = logging.getLogger(__name__)

AGAIN = RetryPolicy(base_s=1.0, max_s=60.0)
"""The pauses before a load that failed is tried again: room may have come, a mistake stays one."""

REFUSED_S = 3.0
"""So long a worker without room is not asked for the model again, times the models it refuses.

Longer than the rounds in which it is asked: those behind have theirs, however many have no room.
"""

EVICTING = RetryPolicy(base_s=30.0, max_s=600.0)
"""The same before it may take the place of other models again: they would have gone for nothing."""

HOPELESS = 3
"""So many failures in a row, and those who wait for the model are told: it will not come soon."""

TOLD_S = 2 * AGAIN.max_s
"""For so long after it a failure is told of: while work waits for the model it is tried again."""


class Loading(Protocol):
    """A worker that can be asked for a model."""

    @property
    def models(self) -> Collection[str]:
        """Those that it has loaded."""

    async def load(
        self,
        model: str,
        used_at: Mapping[str, float],
        keep: Collection[str],
        yielding: Collection[str],
    ) -> None:
        """Return once the model answers; `used_at` tells which others should make room first.

        Those to `keep` make none, those `yielding` do even if they are busy.

        Raises:
            WorkerError: it cannot be loaded, or not now.
        """


class LocalModelLoader:
    """One load of a model in a pool at a time, and one by a worker: the next one is decided anew.

    A worker that has no room, or is down, is not asked again for some seconds, unless another
    model may go now: who has waited longest must not miss that. Others are asked meanwhile, and
    it for other models.
    """

    def __init__(
        self,
        worker_of: Callable[[str, str], Loading | None],
        last_asked: Callable[[], Mapping[str, float]],
        starts: StartTimes,
        clock: Clock,
        again: RetryPolicy = AGAIN,
    ) -> None:
        """`worker_of` a pool and an id is the worker, None if it is not up, or leaves.

        `last_asked` is when each model was last asked for. How long loads take is noted in
        `starts`.
        """
        self._worker_of = worker_of
        self._last_asked = last_asked
        self._starts = starts
        self._clock = clock
        self._again = again
        self._loads: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._loading: set[str] = set()
        self._refusals: dict[tuple[str, str], tuple[float, Collection[str]]] = {}
        self._failures: dict[tuple[str, str], int] = {}
        self._not_before: dict[tuple[str, str], float] = {}
        self._evicts_from: dict[tuple[str, str], float] = {}
        self._troubles: dict[tuple[str, str], tuple[str, float]] = {}
        self._too_large: set[tuple[str, str]] = set()

    def ask(
        self,
        worker: str,
        pool: Pool,
        model: str,
        keep: Collection[str] = (),
        yielding: Collection[str] = (),
    ) -> bool:
        """See the port."""
        key, now = (pool.name, model), self._clock()
        if key in self._loads or worker in self._loading or now < self._not_before.get(key, now):
            return False
        refused_until, kept = self._refusals.get((worker, model), (now, ()))
        if now < refused_until and set(kept) <= set(keep):
            return False
        who = self._worker_of(pool.name, worker)
        if who is None:
            return False

        def ended(_: asyncio.Task[None]) -> None:
            self._loads.pop(key, None)
            self._loading.discard(worker)

        work = self._load(who, worker, *key, keep, yielding)
        self._loading.add(worker)
        self._loads[key] = asyncio.create_task(work, name=f"load-{model}-{pool.name}")
        self._loads[key].add_done_callback(ended)
        return True

    def troubles(self) -> Mapping[tuple[str, str], str]:
        """See the port."""
        since = self._clock() - TOLD_S
        return {key: why for key, (why, at) in self._troubles.items() if at > since}

    def failed(self, pool: str, model: str) -> FailedLoad | None:
        """See the port `FailedLoads`."""
        key = (pool, model)
        is_final = key in self._too_large
        if not is_final and self._failures.get(key, 0) < HOPELESS:
            return None
        why = self.troubles().get(key)
        again_in_s = max(0.0, self._not_before[key] - self._clock())
        return None if why is None else FailedLoad(why, is_final, again_in_s, key in self._loads)

    async def close(self) -> None:
        """Wait for nothing more."""
        loads = list(self._loads.values())
        for load in loads:
            load.cancel()
        await asyncio.gather(*loads, return_exceptions=True)

    async def _load(
        self,
        who: Loading,
        worker: str,
        pool: str,
        model: str,
        keep: Collection[str],
        yielding: Collection[str],
    ) -> None:
        began_at = self._clock()
        try:
            if self._is_spared(pool, model):
                await who.load(model, self._last_asked(), {*keep, *who.models}, ())
            else:
                await who.load(model, self._last_asked(), keep, yielding)
        except (NoRoom, NotNow) as error:
            # Those that are in the way have their turn, or leave: that may be over in a moment.
            self._note_refusal(worker, model, keep)
            self._still(pool, model)
            logger.info("worker %s: %s has to wait: %s", worker, model, error)
        except WorkerError as error:
            self._failed(pool, model, error)
        except Exception as error:
            logger.exception("pool %s: loading %s went wrong", pool, model)
            self._failed(pool, model, error)
        else:
            self._failures.pop((pool, model), None)
            self._evicts_from.pop((pool, model), None)
            self._too_large.discard((pool, model))
            self._troubles.pop((pool, model), None)
            await self._starts.started(load_of(pool, model), self._clock() - began_at)

    def _is_spared(self, pool: str, model: str) -> bool:
        """Whether others keep their place: soon after a load that failed."""
        return self._clock() < self._evicts_from.get((pool, model), 0.0)

    def _note_refusal(self, worker: str, model: str, keep: Collection[str]) -> None:
        now = self._clock()
        self._refusals = {key: each for key, each in self._refusals.items() if each[0] > now}
        others = sum(each == worker and other != model for each, other in self._refusals)
        self._refusals[worker, model] = now + REFUSED_S * (1 + others), keep

    def _still(self, pool: str, model: str) -> None:
        """One that failed, and has to wait for another try, has not come right by that."""
        if (pool, model) in self._failures:
            why, _ = self._troubles[pool, model]
            self._troubles[pool, model] = why, self._clock()

    def _failed(self, pool: str, model: str, error: Exception) -> None:
        now, key = self._clock(), (pool, model)
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        pause_s = self._again.delay_s(failures, 1.0)
        self._not_before[key] = now + pause_s
        if now >= self._evicts_from.get(key, 0.0):
            self._evicts_from[key] = now + EVICTING.delay_s(failures, 1.0)
        self._troubles[key] = str(error) or type(error).__name__, now
        (self._too_large.add if isinstance(error, TooLarge) else self._too_large.discard)(key)
        text = "pool %s: %s is not loaded: %s (again in %.0f s, if it is wanted)"
        logger.warning(text, pool, model, error, pause_s)
