"""The profiler's state machine → what is to be measured, and the profile once it has been.

What comes between, the measuring, is done by the pools' own runners. They may reach nothing but
workers: that there is one is asked for here too.
"""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools import Tracer
from aws_lambda_powertools.utilities.typing import LambdaContext

from synapse.adapters.profile_events import (
    KEEP,
    PLAN,
    WAKE,
    plan_from_event,
    plan_to_event,
    profile_to_event,
    step_of,
    target_from_event,
)
from synapse.application.profile import BUDGET_S
from synapse.aws_fleet import fleet_target
from synapse.aws_loop import run
from synapse.aws_profiling import profiler_of
from synapse.observability import lambda_logger

logger = lambda_logger()
tracer = Tracer()


@logger.inject_lambda_context(clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Plan, wake or keep.

    Raises:
        ProfilingError: what is wished for is not served, or too little was measured of it.
        ValueError: it is no step of this function's.
    """
    if step_of(event) == WAKE:
        run(fleet_target().parts.waker.wake_pool(event["pool"]))
        return {}
    profiler = profiler_of(fleet_target())
    if step_of(event) == PLAN:
        wish = plan_from_event(event, BUDGET_S)
        found = run(profiler.targets(wish.model, wish.pool))
        wanted = [(each.spec, each.pool) for each in found if wish.force or each.known is None]
        logger.info("profiles planned", extra={"targets": len(wanted), "known": len(found)})
        return plan_to_event(wanted, wish.budget_s)
    if step_of(event) == KEEP:
        order = target_from_event(event)
        chosen = run(profiler.target(order.model, order.version, order.pool))
        profile = run(profiler.keep(chosen, order.done))
        logger.info("profile kept", extra={"model": profile.model, "pool": profile.pool})
        return profile_to_event(profile)
    raise ValueError(f"step {step_of(event)!r} is none of {PLAN}, {WAKE} and {KEEP}")
