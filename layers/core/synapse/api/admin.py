"""Routes for operators, `/api/admin…`: the fleet as it stands, and why a request goes where."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from aws_lambda_powertools.event_handler.openapi.params import Query

from synapse.api.admin_schemas import (
    CandidateBody,
    LatencyBody,
    PoolBody,
    PoolList,
    PoolModelBody,
    ProfileBody,
    RouteBody,
    ScalingBody,
    WorkerDetail,
    WorkerList,
    WorkerModelBody,
)
from synapse.api.resolver import Api, Reply
from synapse.api.responses import errors, json_response
from synapse.api.schemas import TierName
from synapse.api.services import Services
from synapse.application.autoscale import PoolStanding
from synapse.application.fleet_view import ModelInPool, PoolReport, WorkerView
from synapse.domain.access import Scope
from synapse.domain.job import SlaTier
from synapse.domain.latency import Quantiles
from synapse.domain.routing import TIER_P99_MS, Candidate, Decision, Need

MAX_TOKENS = 10_000_000
MAX_ITEMS = 100_000

Tokens = Annotated[int, Query(ge=0, le=MAX_TOKENS)]


def add_admin_routes(api: Api, services: Services) -> None:
    """Register the routes on `api`."""

    @api.handles(
        "GET",
        "/api/admin/route",
        scope=Scope.ADMIN,
        summary="Where a request would go now, and why",
        tags=["admin"],
        responses={200: json_response("The decision", RouteBody), **errors(400, 404, 503)},
    )
    async def route(
        model: Annotated[str, Query(min_length=1)],
        tier: Annotated[TierName, Query()] = "silver",
        deadline: Annotated[
            float | None, Query(gt=0, le=86_400, description="Seconds for the whole answer.")
        ] = None,
        prompt_tokens: Tokens = 0,
        output_tokens: Tokens = 0,
        items: Annotated[int, Query(ge=1, le=MAX_ITEMS)] = 1,
    ) -> Reply:
        need = Need(SlaTier(tier), items, prompt_tokens, output_tokens, deadline)
        spec, need, decision = await services.fleet.route(model, need)
        return Reply(_route(spec.name, need, decision))

    @api.handles(
        "GET",
        "/api/admin/workers",
        scope=Scope.ADMIN,
        summary="The workers that are alive",
        tags=["admin"],
        responses={200: json_response("The workers, by pool and id", WorkerList), **errors(503)},
    )
    async def workers() -> Reply:
        return Reply(WorkerList(data=[_worker(view) for view in await services.fleet.workers()]))

    @api.handles(
        "GET",
        "/api/admin/pools",
        scope=Scope.ADMIN,
        summary="The pools: sizes, breakers, profiles",
        tags=["admin"],
        responses={200: json_response("The pools, by name", PoolList), **errors(503)},
    )
    async def pools() -> Reply:
        return Reply(PoolList(data=[_pool(report) for report in await services.fleet.pools()]))


def _route(model: str, need: Need, decision: Decision) -> RouteBody:
    promise_ms = TIER_P99_MS[need.tier]
    return RouteBody(
        model=model,
        tier=need.tier.value,
        promise_ms=promise_ms if promise_ms < float("inf") else None,
        promise_is_about="first token" if need.first_token_only else "whole answer",
        deadline_s=need.deadline_s,
        prompt_tokens=need.prompt_tokens,
        output_tokens=need.output_tokens,
        items=need.items,
        pools=[pool.name for pool in decision.pools],
        fallback=decision.fallback or None,
        is_cold=decision.is_cold,
        candidates=[_candidate(candidate) for candidate in decision.candidates],
    )


def _candidate(candidate: Candidate) -> CandidateBody:
    prediction = candidate.prediction
    return CandidateBody(
        pool=candidate.pool.name,
        accelerator=candidate.pool.accelerator,
        fits=candidate.fits,
        reason=candidate.reason,
        p99_ms=prediction and prediction.whole_p99_ms,
        first_token_p99_ms=prediction and prediction.first_p99_ms,
        wait_ms=prediction and prediction.wait_ms,
        start_ms=prediction and prediction.start_ms,
        usd_per_item=candidate.usd_per_item,
        busy_usd_per_item=candidate.busy_usd_per_item,
        slots=candidate.slots,
        is_cold=candidate.is_cold,
        is_open=candidate.is_open,
        must_yield=candidate.must_yield,
    )


def _worker(view: WorkerView) -> WorkerDetail:
    worker = view.worker
    fields = {name: value for name, value in asdict(worker).items() if name != "models"}
    models = [
        WorkerModelBody(
            name=model.name,
            version=model.version,
            level=model.level,
            breaker=view.breakers[model.name],
        )
        for model in worker.models
    ]
    return WorkerDetail(**fields, models=models, outstanding=view.outstanding)


def _pool(report: PoolReport) -> PoolBody:
    pool, size = report.pool, report.size
    return PoolBody(
        name=pool.name,
        accelerator=pool.accelerator,
        price_per_hour_usd=pool.price_per_hour_usd,
        min_workers=pool.min_workers,
        max_workers=pool.max_workers,
        idle_after_s=pool.idle_after_s,
        startup_s=pool.startup_s,
        is_fixed=pool.is_fixed,
        desired=size and size.desired,
        ready=size and size.ready,
        starting=size and size.starting,
        scaling=_scaling(report.standing),
        models=[_model(model) for model in report.models],
    )


def _scaling(standing: PoolStanding | None) -> ScalingBody | None:
    if standing is None:
        return None
    decision = standing.decision
    return ScalingBody(
        desired=decision.desired,
        need=decision.need,
        warm=standing.warm,
        reason=decision.reason,
        decided_at=standing.decided_at,
    )


def _model(model: ModelInPool) -> PoolModelBody:
    view, profile = model.view, model.view.profile
    return PoolModelBody(
        model=model.spec.name,
        version=model.spec.version,
        ready=view.ready,
        starting=view.starting,
        slots=view.slots,
        in_flight=view.in_flight,
        seconds_per_item=view.seconds_per_item,
        breaker=model.breaker,
        is_open=view.is_open,
        latency_ms=_latency(model.took_ms),
        profile=None if profile is None else ProfileBody(**_fields_of(profile)),
    )


def _fields_of(profile: object) -> dict[str, object]:
    return {name: getattr(profile, name) for name in ProfileBody.model_fields}


def _latency(quantiles: Quantiles | None) -> LatencyBody | None:
    return None if quantiles is None else LatencyBody(**asdict(quantiles))
