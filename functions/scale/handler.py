"""Every minute, and when work comes that no worker is up for: set how many workers there are."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from aws_lambda_powertools import Tracer
from aws_lambda_powertools.utilities.typing import LambdaContext

from synapse.aws_fleet import fleet_target
from synapse.aws_loop import run
from synapse.domain.extension import Extension
from synapse.domain.job import SlaTier
from synapse.observability import lambda_logger

logger = lambda_logger()
tracer = Tracer()

ROUND_EVERY_S = 10.0
"""While work waits or workers start; else the schedule's minute will do."""

RESERVE_S = 10.0
"""Of its time, for a last round that takes long."""


@logger.inject_lambda_context(clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Rounds of the autoscaler; who woke it names a pool, or model and tier of what has come.

    Raises:
        RuntimeError: pools have brought no worker up for two start-ups and 30 s; all was done.
    """
    if "pool" in event:
        fleet_target().autoscaler.hold(event["pool"])
    elif "model" in event:
        requires = frozenset(Extension(each) for each in event.get("requires", ()))
        tier = SlaTier(event["tier"])
        fleet_target().parts.demand.woken(event["model"], tier, time.time(), requires)
    left_s = context.get_remaining_time_in_millis() / 1000
    with fleet_target().telemetry_flushed():
        changes = run(fleet_target().autoscaler.settle(left_s - RESERVE_S, ROUND_EVERY_S))
    changed = {decision.pool: decision.desired for decision in changes}
    pools = len(fleet_target().autoscaler.decisions())
    logger.info("scaled", extra={"pools": pools, "changed": changed})
    stuck = fleet_target().autoscaler.stuck()
    if stuck:
        # Work just waits for them: nothing else would tell.
        _note(stuck)
        raise RuntimeError(f"no worker comes up in: {', '.join(stuck)}")
    return {"pools": pools, "changed": changed}


def _note(stuck: Sequence[str]) -> None:
    try:
        run(fleet_target().note_stuck(stuck))
    except Exception:
        logger.exception("health not recorded", extra={"stuck": stuck})
