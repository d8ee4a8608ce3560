"""The batcher → jobs of a batch that no pool could run: back to their queue, or ended."""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools import Tracer
from aws_lambda_powertools.utilities.typing import LambdaContext

from synapse.adapters.codec import give_back_order_from_event
from synapse.bootstrap_aws import run, target
from synapse.observability import lambda_logger

logger = lambda_logger()
tracer = Tracer()


@logger.inject_lambda_context(clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Give the jobs back."""
    order = give_back_order_from_event(event)
    logger.append_keys(batch_id=order.batch_id)
    logger.warning("batch given back", extra={"jobs": len(order.job_ids), "lost": order.lost})
    give_back = target().give_back
    if order.lost:
        target().telemetry.batch_lost()
    with target().telemetry_flushed():
        run(give_back(order.batch_id, order.job_ids, order.failure, lost=order.lost))
    return {"batchId": order.batch_id}
