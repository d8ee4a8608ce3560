"""`synapse profile`: measures the models on the pools of this machine, one pool at a time.

Each pool gets one worker with nothing but the models to be measured, one after the other where they
may not fit together, and no other pool runs meanwhile: what shares a machine would measure its
neighbours too.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from synapse.adapters.local.failures import StorageError
from synapse.adapters.local.workers import LocalWorkerRegistry
from synapse.adapters.triton.engine import TritonEngine
from synapse.application.company import TYPICAL_PROMPT_TOKENS
from synapse.application.profile import BUDGET_S, Profiler, Progress, Report, Target
from synapse.application.routing import TYPICAL_OUTPUT_TOKENS
from synapse.domain.errors import EngineUnavailable
from synapse.domain.job import SlaTier
from synapse.domain.model import ModelSpec, Task
from synapse.domain.pool import Pool
from synapse.domain.profile import Profile
from synapse.domain.profiling import ProfilingError
from synapse.domain.routing import Need
from synapse.domain.sizing import slots_within
from synapse_server.config import FleetConfig, LocalPool, ServerConfig, StartError
from synapse_server.ground import opened_database, served_models
from synapse_server.local_fleet import LocalFleet
from synapse_server.records import Records

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be profiled: of which model and pool ("" for all), again or only what lacks it."""

    model: str = ""
    pool: str = ""
    force: bool = False
    budget_s: float = BUDGET_S


async def profile(config: ServerConfig, wish: Wish, say: Say) -> Sequence[Report]:
    """Measure what is wished for and keep the profiles in the data folder.

    A model for which no worker can be started is reported, and spares the others.

    Raises:
        StartError: a server uses the data folder, or there is no such model or pool.
    """
    pools = [local.pool for local in config.fleet.pools]
    workers, reports = LocalWorkerRegistry(), list[Report]()
    async with contextlib.AsyncExitStack() as stack:
        try:
            specs, database = served_models(config), opened_database(config)
            stack.push_async_callback(database.close)
            records = await Records.open(config, specs, pools, database, stack)
            engine = await stack.enter_async_context(TritonEngine())
            place = _Placing(workers)
            profiler = Profiler(
                records.registry, engine, records.profiles, place, _nobody_else, time.time
            )
            targets = await profiler.targets(wish.model, wish.pool)
        except (StorageError, ProfilingError) as error:
            raise StartError(str(error)) from error

        def measure(together: Sequence[Target]) -> AsyncIterator[Report]:
            return profiler.run(together, wish.budget_s, lambda each: say(_line(each)))

        for local in config.fleet.pools:
            wanted = [each for each in targets if each.pool.name == local.pool.name]
            reports += [_as_known(each) for each in wanted if each.known and not wish.force]
            new = [each for each in wanted if wish.force or not each.known]
            for together in _that_fit(local, new):
                reports += await _measured(config, local, together, workers, measure)
    return reports


async def _measured(
    config: ServerConfig,
    local: LocalPool,
    targets: Sequence[Target],
    workers: LocalWorkerRegistry,
    measure: Callable[[Sequence[Target]], AsyncIterator[Report]],
) -> Sequence[Report]:
    """What becomes of models on a worker that has them all, or on one for each if there is none."""
    try:
        async with _worker(config, local, targets, workers):
            return [report async for report in measure(targets)]
    except StartError as error:
        if len(targets) == 1:
            return [Report(targets[0], None, str(error))]
    alone = [await _measured(config, local, [each], workers, measure) for each in targets]
    return [report for reports in alone for report in reports]


def _that_fit(local: LocalPool, targets: Sequence[Target]) -> Sequence[Sequence[Target]]:
    """What a worker of the pool may hold at a time: all, or each by itself."""
    if local.pool.loads_on_demand:
        return [[target] for target in targets]
    return [targets] if targets else []


class _Placing:
    """Places on the one worker that runs, or on the pool's own engine."""

    def __init__(self, workers: LocalWorkerRegistry) -> None:
        self._workers = workers

    async def __call__(self, spec: ModelSpec, pool: Pool) -> Pool:
        if pool.is_fixed:
            return pool
        for worker in await self._workers.workers(time.time()):
            if worker.pool == pool.name and worker.has(spec.name):
                return replace(pool, endpoint=worker.endpoint, worker=worker.id)
        raise EngineUnavailable(f"the worker of pool {pool.name!r} does not answer")


async def _nobody_else(pool: Pool) -> int:
    """The worker was started for this alone; whom else an engine elsewhere serves is not known."""
    return 0


@contextlib.asynccontextmanager
async def _worker(
    config: ServerConfig, local: LocalPool, targets: Sequence[Target], workers: LocalWorkerRegistry
) -> AsyncIterator[None]:
    """One worker of the pool, with these models only."""
    specs = [target.spec for target in targets]
    models = tuple(spec.name for spec in specs)
    pool = local.pool
    slots = {name: count for name, count in pool.slots.items() if name in models}
    pool = replace(pool, models=frozenset(models), slots=slots, warm=())
    if not pool.is_fixed:
        pool = replace(pool, min_workers=1, max_workers=1)
    parameters = {name: each for name, each in local.model_parameters.items() if name in models}
    alone = FleetConfig((LocalPool(pool, parameters),), config.fleet.times)
    fleet = LocalFleet(replace(config, models=models, fleet=alone), specs, workers, time.time)
    try:
        await fleet.open()
        yield
    finally:
        await fleet.close()


def _as_known(target: Target) -> Report:
    return Report(target, target.known)


def _line(progress: Progress) -> str:
    """A measurement in a line."""
    found, cell = progress.measured, progress.measured.cell
    where = f"{progress.target.spec.name} on {progress.target.pool.name}"
    what = f"{cell.in_flight} in flight, {found.prompt_tokens:g} + {found.output_tokens:g} tokens"
    if not found.counts:
        return f"{where}: {what}: {len(found.total_ms)} answers, {found.failed} failed"
    took = f"{median(found.total_ms):.1f} ms"
    if found.first_ms:
        took = f"first token {median(found.first_ms):.1f} ms, all {took}"
    rate = f"{found.items_per_s:.1f} items/s"
    return f"{where}: {what}: {took}, {rate} ({len(found.total_ms)} items, {found.took_s:.1f} s)"


COLUMNS = (
    "model",
    "pool",
    "base ms",
    "ms/prompt token",
    "ms/output token",
    "company",
    "saturates at",
    "p99/p50",
    "best batch",
    "items/s",
    "USD/1k items",
    "gold slots",
    "silver slots",
    "fit error",
)
MOST_SLOTS = 256
"""A pool of more is not suggested."""


def table(reports: Sequence[Report]) -> str:
    """The profiles as a table, and what went wrong below it."""
    rows = [COLUMNS, *(_row(report) for report in reports if report.profile is not None)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(COLUMNS))]
    lines = [
        "  ".join(
            text.ljust(width) if at < 2 else text.rjust(width)
            for at, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    problems = [
        f"{report.target.spec.name} on {report.target.pool.name}: {report.problem}"
        for report in reports
        if report.profile is None
    ]
    return "\n".join([*(lines if len(rows) > 1 else []), *problems])


def _row(report: Report) -> tuple[str, ...]:
    found = report.profile
    assert found is not None
    return (
        f"{found.model}:{found.version}",
        found.pool,
        f"{found.base_ms:.2f}",
        f"{found.prompt_token_ms:.4f}",
        f"{found.output_token_ms:.3f}",
        f"{found.company:.3f}",
        str(found.saturates_at or "-"),
        f"{found.spread:.2f}",
        f"{found.best_batch}",
        f"{found.items_per_s:.1f}",
        f"{found.usd_per_1k_items:.6f}",
        *(_slots(report.target.spec, found, tier) for tier in (SlaTier.GOLD, SlaTier.SILVER)),
        f"{found.fit_error:.0%}",
    )


def _slots(spec: ModelSpec, found: Profile, tier: SlaTier) -> str:
    """How many slots a worker may have for typical requests of a tier to keep their promise."""
    generates = spec.task is Task.GENERATE
    need = Need(
        tier,
        prompt_tokens=TYPICAL_PROMPT_TOKENS,
        output_tokens=TYPICAL_OUTPUT_TOKENS if generates else 0,
        first_token_only=generates,
    )
    slots = slots_within(found, need, MOST_SLOTS)
    return f"≥ {slots}" if slots == MOST_SLOTS else str(slots)
