"""The batcher → one batch on one pool. The error's class name tells the batcher what to do."""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools import Tracer
from aws_lambda_powertools.utilities.typing import LambdaContext

from synapse.adapters.codec import runner_order_from_event
from synapse.bootstrap_aws import run, target
from synapse.observability import lambda_logger

logger = lambda_logger()
tracer = Tracer()


@logger.inject_lambda_context(clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Run the batch; the lease lasts as long as this invocation may.

    Raises:
        EngineUnavailable: some jobs never got to work (retried, then the next pool).
        EngineLost: the worker went down with some jobs (given back).
    """
    batch, pool_name = runner_order_from_event(event)
    logger.append_keys(batch_id=batch.id, model=batch.model, pool=pool_name)
    lease_s = context.get_remaining_time_in_millis() / 1000
    with target().telemetry_flushed():
        run(target().runner(lease_s).run(batch, target().pool(pool_name)))
    logger.info("batch done", extra={"jobs": len(batch.job_ids)})
    return {"batchId": batch.id, "jobs": len(batch.job_ids)}
