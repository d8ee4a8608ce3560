"""Every minute, and when work comes that no worker is up for: set how many workers there are."""

from __future__ import annotations

import time
from typing import Any

from aws_lambda_powertools import Tracer
from aws_lambda_powertools.utilities.typing import LambdaContext

from synapse.bootstrap_aws import run, target
from synapse.domain.job import SlaTier
from synapse.observability import lambda_logger

logger = lambda_logger()
tracer = Tracer()


@logger.inject_lambda_context(clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """A round of the autoscaler; who woke it names the model and the tier of what has come."""
    if "model" in event:
        target().parts.demand.woken(event["model"], SlaTier(event["tier"]), time.time())
    with target().telemetry_flushed():
        decisions = run(target().autoscaler.run())
    changed = {decision.pool: decision.desired for decision in decisions if decision.is_change}
    logger.info("scaled", extra={"pools": len(decisions), "changed": changed})
    return {"pools": len(decisions), "changed": changed}
