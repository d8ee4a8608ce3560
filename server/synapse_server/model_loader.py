"""Has workers of this machine load models that work waits for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
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

EVICTING = RetryPolicy(base_s=30.0, max_s=600.0)
"""The same before it may take the place of other models again: they would have gone for nothing."""

REFUSED_S = 3.0
"""So long a worker without room is not asked for the model again, times the models it refuses."""

REFUSED_ROUNDS = 3.0
"""The same in rounds: where they are longer those behind must have theirs, too."""

HOPELESS = 3
"""So many failures in a row, and those who wait for the model are told: it will not come soon."""

TOLD_S = 2 * AGAIN.max_s
"""For so long after it a failure is told of: while work waits for the model it is tried again."""

FORGOTTEN_S = 2 * EVICTING.max_s
"""So long after the last trouble with a model a failure is the first one again."""


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


@dataclass(slots=True)
class _Trouble:
    """Failures of a model in a pool since it was loaded last: how many, why, when it was seen last.

    `due_at` is when a try may come to something: later than it is allowed, where it would need the
    place of others.
    """

    count: int
    why: str
    at: float
    is_final: bool
    not_before: float
    due_at: float
    evicts_from: float


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
        round_s: float = 1.0,
    ) -> None:
        """`worker_of` a pool and an id is the worker, None if it is not up, or leaves.

        `last_asked` is when each model was last asked for. How long loads take is noted in
        `starts`. Each `round_s` seconds it is asked for what is wanted.
        """
        self._worker_of = worker_of
        self._last_asked = last_asked
        self._starts = starts
        self._clock = clock
        self._again = again
        self._refused_s = max(REFUSED_S, REFUSED_ROUNDS * round_s)
        self._loads: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._loading: set[str] = set()
        self._refusals: dict[tuple[str, str], tuple[float, Collection[str]]] = {}
        self._waits: dict[tuple[str, str], float] = {}
        self._troubles: dict[tuple[str, str], _Trouble] = {}

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
        trouble = self._troubles.get(key)
        if key in self._loads or worker in self._loading:
            return False
        if trouble is not None and now < trouble.not_before:
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
        return {key: each.why for key, each in self._troubles.items() if each.at > since}

    def failed(self, pool: str, model: str) -> FailedLoad | None:
        """See the port `FailedLoads`."""
        key, now = (pool, model), self._clock()
        trouble = self._troubles.get(key)
        if trouble is None or trouble.at <= now - TOLD_S:
            return None
        if not trouble.is_final and trouble.count < HOPELESS:
            return None
        again_in_s = max(0.0, trouble.due_at - now)
        return FailedLoad(trouble.why, trouble.is_final, again_in_s, key in self._loads)

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
        key, began_at = (pool, model), self._clock()
        trouble = self._troubles.get(key)
        # Soon after a load that failed others keep their place.
        is_spared = trouble is not None and began_at < trouble.evicts_from
        try:
            if is_spared:
                await who.load(model, self._last_asked(), {*keep, *who.models}, ())
            else:
                await who.load(model, self._last_asked(), keep, yielding)
        except (NoRoom, NotNow) as error:
            # Those that are in the way have their turn, or leave: that may be over in a moment.
            self._note_refusal(worker, model, keep)
            self._note_wait(worker, key, error)
            if trouble is not None:
                # One that failed, and has to wait for another try, has not come right by that.
                trouble.at = self._clock()
                if is_spared and isinstance(error, NoRoom):
                    trouble.due_at = trouble.evicts_from
        except WorkerError as error:
            self._failed(key, error)
        except Exception as error:
            logger.exception("pool %s: loading %s went wrong", pool, model)
            self._failed(key, error)
        else:
            self._troubles.pop(key, None)
            self._waits.pop(key, None)
            await self._starts.started(load_of(pool, model), self._clock() - began_at)

    def _note_refusal(self, worker: str, model: str, keep: Collection[str]) -> None:
        now = self._clock()
        self._refusals = {key: each for key, each in self._refusals.items() if each[0] > now}
        others = sum(each == worker and other != model for each, other in self._refusals)
        self._refusals[worker, model] = now + self._refused_s * (1 + others), keep

    def _note_wait(self, worker: str, key: tuple[str, str], error: WorkerError) -> None:
        """Tell of it once: it may be asked for many times before it has its turn."""
        now = self._clock()
        if self._waits.get(key, float("-inf")) <= now - TOLD_S:
            logger.info("worker %s: %s has to wait: %s", worker, key[1], error.cause)
        self._waits[key] = now

    def _failed(self, key: tuple[str, str], error: Exception) -> None:
        now, before = self._clock(), self._troubles.get(key)
        if before is not None and before.at <= now - FORGOTTEN_S:
            before = None
        failures = 1 if before is None else before.count + 1
        pause_s = self._again.delay_s(failures, 1.0)
        evicts_from = 0.0 if before is None else before.evicts_from
        if now >= evicts_from:
            evicts_from = now + EVICTING.delay_s(failures, 1.0)
        self._troubles[key] = _Trouble(
            count=failures,
            why=str(error) or type(error).__name__,
            at=now,
            is_final=isinstance(error, TooLarge),
            not_before=now + pause_s,
            due_at=now + pause_s,
            evicts_from=evicts_from,
        )
        self._waits.pop(key, None)
        text = "pool %s: %s is not loaded: %s (again in %.0f s, if it is wanted)"
        logger.warning(text, *key, error, pause_s)
