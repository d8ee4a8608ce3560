"""What the routes for operators answer."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from synapse.api.wire import WireModel

BreakerName = Literal["closed", "open", "half_open"]


class CandidateBody(WireModel):
    """A pool as the router judged it. Null where nothing was measured; times in milliseconds."""

    pool: str
    accelerator: str
    fits: bool
    reason: str
    p99_ms: float | None = Field(description="Predicted, of the whole answer, with the wait.")
    first_token_p99_ms: float | None = Field(description="Predicted, until the first token.")
    wait_ms: float | None = Field(description="How much of it passes before a slot is free.")
    start_ms: float | None = Field(description="How much of the wait is for a worker to start.")
    usd_per_item: float | None = Field(description="What an item adds to the bill now.")
    busy_usd_per_item: float | None = Field(description="What it costs on a busy worker.")
    slots: int = Field(description="Of all its workers that are up; of one if none is.")
    is_cold: bool = Field(description="No worker is up.")
    is_open: bool = Field(description="Its circuit breaker lets nothing through.")
    must_yield: bool = Field(description="Bronze would be in the way of better tiers.")


class RouteBody(WireModel):
    """Where a request would go now: `pools` in the order in which they are tried."""

    model: str
    tier: str
    promise_ms: float | None = Field(description="The tier's p99; null for best effort.")
    promise_is_about: Literal["first token", "whole answer"]
    deadline_s: float | None
    prompt_tokens: int
    output_tokens: int
    items: int
    pools: list[str]
    fallback: str | None = Field(description="Why no pool fits, where none does.")
    is_cold: bool
    candidates: list[CandidateBody]


class WorkerModelBody(WireModel):
    """A model that a worker knows, how near it is, and its circuit breaker there."""

    name: str
    version: str
    level: str
    breaker: BreakerName


class WorkerDetail(WireModel):
    """A worker as its last heartbeat showed it; shares are from 0 to 1, null if not measured."""

    id: str
    pool: str
    accelerator: str
    state: str
    endpoint: str
    models: list[WorkerModelBody]
    started_at: float
    beat_at: float
    lease_until: float
    queue_length: int
    gpu_utilisation: float | None
    free_memory_bytes: int | None
    kv_cache_use: float | None
    kv_cache_hit_rate: float | None
    detail: str
    outstanding: int = Field(description="Items that the answering process has under way there.")


class WorkerList(WireModel):
    """All workers whose lease runs."""

    object: Literal["list"] = "list"
    data: list[WorkerDetail]


class LatencyBody(WireModel):
    """What calls took in the last minute, in milliseconds."""

    count: int
    p50: float
    p95: float
    p99: float


class ProfileBody(WireModel):
    """What the profiler measured of a model in a pool."""

    base_ms: float
    prompt_token_ms: float
    output_token_ms: float
    company: float
    spread: float
    best_batch: int
    items_per_s: float
    usd_per_1k_items: float
    samples: int
    measured_at: float


class PoolModelBody(WireModel):
    """A model in a pool."""

    model: str
    version: str
    ready: int = Field(description="Workers that answer for it.")
    starting: int
    slots: int = Field(description="Items that one worker takes at once.")
    in_flight: int
    seconds_per_item: float | None = Field(description="Slot time measured lately.")
    breaker: BreakerName = Field(description="That of the pool.")
    is_open: bool = Field(
        description="The router passes it over: its breaker is open, or all its workers' are."
    )
    latency_ms: LatencyBody | None
    profile: ProfileBody | None


class ScalingBody(WireModel):
    """What the autoscaler decided at its last round, and why."""

    desired: int
    need: float = Field(description="What the load comes to, in fractions of a worker.")
    warm: int = Field(description="Workers that are to be up, work or no work.")
    reason: str
    decided_at: float


class PoolBody(WireModel):
    """A pool; sizes are null where nobody here decides them."""

    name: str
    accelerator: str
    price_per_hour_usd: float
    min_workers: int
    max_workers: int
    idle_after_s: float
    startup_s: float
    is_fixed: bool = Field(description="Its one worker runs elsewhere.")
    desired: int | None
    ready: int | None
    starting: int | None
    scaling: ScalingBody | None = Field(description="Null where another process decides.")
    models: list[PoolModelBody]


class PoolList(WireModel):
    """All pools."""

    object: Literal["list"] = "list"
    data: list[PoolBody]
