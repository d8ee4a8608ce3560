"""The product's ports over simulated machines, in memory, and awaiting nothing."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import AsyncGenerator, Mapping, Sequence

from bench.simulator.pools import Kind, Pools, Unit
from synapse.adapters.local.registry import RATE_MINUTES
from synapse.adapters.local.workers import LocalWorkerRegistry
from synapse.domain.answer import Answered
from synapse.domain.batching import Batch
from synapse.domain.delivery import Delivery
from synapse.domain.errors import EngineError
from synapse.domain.estimate import ServiceRate
from synapse.domain.file_batch import FileBatch
from synapse.domain.inference import Delta, Result
from synapse.domain.job import Job, JobId, Priority
from synapse.domain.model import ModelSpec, ServiceSample, WorkerHealth
from synapse.domain.pool import Pool, PoolSize
from synapse.domain.profile import Profile
from synapse.domain.scaling import ScalingDecision
from synapse.domain.worker import CacheLevel, Worker, WorkerModel, WorkerState
from synapse.ports import InferenceRequest, StreamingEngine

NEVER = float("inf")


class Catalogue:
    """The port `Registry`: models, pools, and how fast they were in the last minutes."""

    def __init__(self, models: Sequence[ModelSpec], pools: Sequence[Pool]) -> None:
        self._models = {model.name: model for model in models}
        self._pools = pools
        self._minutes: defaultdict[tuple[str, str], deque[tuple[int, ServiceRate]]] = defaultdict(
            lambda: deque(maxlen=RATE_MINUTES)
        )

    async def models(self) -> Sequence[ModelSpec]:
        """See the port."""
        return list(self._models.values())

    async def model(self, name: str) -> ModelSpec | None:
        """See the port."""
        return self._models.get(name)

    async def pools(self, model: str) -> Sequence[Pool]:
        """See the port."""
        return [pool for pool in self._pools if pool.serves(model)]

    async def record_service(self, sample: ServiceSample, now: float) -> None:
        """See the port."""
        minute = int(now // 60)
        for pool in (sample.pool, ""):
            minutes = self._minutes[sample.model, pool]
            if minutes and minutes[-1][0] == minute:
                known = minutes.pop()[1]
            else:
                known = ServiceRate(0, 0.0)
            rate = ServiceRate(known.items + sample.items, known.busy_s + sample.busy_s)
            minutes.append((minute, rate))

    async def service_rate(self, model: str, now: float, pool: str = "") -> ServiceRate:
        """See the port."""
        rates = [rate for _, rate in self._minutes.get((model, pool), ())]
        return ServiceRate(sum(rate.items for rate in rates), sum(rate.busy_s for rate in rates))

    async def record_health(self, health: WorkerHealth) -> None:
        """Nothing pings simulated workers."""

    async def health(self) -> Sequence[WorkerHealth]:
        """Nothing pings simulated workers."""
        return []


class Profiles:
    """The port `ProfileStore`: what the profiler would have measured of the machines."""

    def __init__(self, kinds: Sequence[Kind]) -> None:
        self._profiles = {
            (model, kind.pool.name): profile_of(kind, model)
            for kind in kinds
            for model in kind.work
        }

    async def profile(self, model: str, version: str, pool: str) -> Profile | None:
        """See the port."""
        return self._profiles.get((model, pool))

    async def profiles(self) -> Sequence[Profile]:
        """See the port."""
        return list(self._profiles.values())

    async def keep(self, profile: Profile) -> None:
        """See the port."""
        self._profiles[profile.model, profile.pool] = profile


def profile_of(kind: Kind, model: str) -> Profile:
    """The line through the times of a model on a machine of this kind."""
    work, pace = kind.work[model], kind.pace
    together = pace.saturates_at or (1 if pace.company >= 1 else pace.slots)
    per_item_s = work.p50_s * (1 + pace.company * (together - 1)) / together
    return Profile(
        model,
        "1",
        kind.pool.name,
        kind.pool.accelerator,
        base_ms=work.p50_s * 1000,
        company=pace.company,
        spread=work.p99_s / work.p50_s,
        best_batch=together,
        items_per_s=1 / per_item_s,
        usd_per_1k_items=kind.pool.price_per_hour_usd / 3600 * per_item_s * 1000,
        samples=100,
        saturates_at=pace.saturates_at,
    )


class Heartbeats:
    """Tells the product's own worker registry of machines that start, come up and leave."""

    def __init__(self, workers: LocalWorkerRegistry, models: Sequence[ModelSpec]) -> None:
        self.workers = workers
        self._models = models

    def beat(self, unit: Unit, now: float, state: WorkerState) -> Worker:
        """What the agent on the machine would say."""
        level = CacheLevel.GPU_RESIDENT if state is WorkerState.READY else CacheLevel.REMOTE
        models = tuple(WorkerModel(model.name, model.version, level) for model in self._models)
        kind = unit.kind.pool
        return Worker(
            unit.id, kind.name, kind.accelerator, state, unit.id, models, unit.asked_at, now, NEVER
        )


class PoolCapacity:
    """The port `Capacity` over simulated machines."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools
        self._kinds = {kind.pool.name: kind for kind in pools.kinds}
        self.changes: Counter[str] = Counter()
        """How often each pool was resized."""

    async def size(self, pool: Pool) -> PoolSize:
        """See the port."""
        staying = self._pools.staying(pool.name)
        ready = sum(unit.is_up for unit in staying)
        return PoolSize(len(staying), ready, len(staying) - ready)

    async def resize(self, pool: Pool, desired: int) -> None:
        """See the port."""
        self.changes[pool.name] += 1
        self._pools.resize(self._kinds[pool.name], desired)


class Nowhere(StreamingEngine):
    """The port `StreamingEngine`: calls are simulated, so nobody calls it."""

    def infer(
        self, model: ModelSpec, pool: Pool, requests: Sequence[InferenceRequest]
    ) -> AsyncGenerator[tuple[JobId, Result | EngineError], None]:
        """See the port."""
        raise NotImplementedError

    def stream(
        self, model: ModelSpec, pool: Pool, request: InferenceRequest
    ) -> AsyncGenerator[Delta, None]:
        """See the port."""
        raise NotImplementedError


class Silence:
    """The port `Telemetry`, for nobody."""

    def submitted(self, job: Job) -> None:
        """See the port."""

    def ended(self, job: Job) -> None:
        """See the port."""

    def batch_ran(self, batch: Batch, pool: Pool, seconds: float, errors: int) -> None:
        """See the port."""

    def answered(self, answered: Answered) -> None:
        """See the port."""

    def file_batch_ended(self, batch: FileBatch) -> None:
        """See the port."""

    def webhook_tried(self, delivery: Delivery) -> None:
        """See the port."""

    def pinged(self, health: WorkerHealth) -> None:
        """See the port."""

    def swept(self, remedies: Mapping[str, int]) -> None:
        """See the port."""

    def queue_depth(self, depth: Mapping[Priority, int]) -> None:
        """See the port."""

    def pool_sized(self, pool: str, desired: int, ready: int, starting: int) -> None:
        """See the port."""

    def scaled(self, decision: ScalingDecision) -> None:
        """See the port."""

    def cold_started(self, model: str, pool: str, seconds: float) -> None:
        """See the port."""
