"""The batcher → one batch on one pool. The error's class name tells the batcher what to do.

The pinger → a tiny inference, or only a call that keeps the environment warm.
"""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools import Tracer
from aws_lambda_powertools.utilities.typing import LambdaContext

from synapse.adapters.codec import runner_order_from_event
from synapse.adapters.probe_events import is_probe
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
    if is_probe(event):
        return run(target().probe(event))
    batch, pool_name = runner_order_from_event(event)
    logger.append_keys(batch_id=batch.id, model=batch.model, pool=pool_name)
    lease_s = context.get_remaining_time_in_millis() / 1000
    with target().telemetry_flushed():
        run(target().run_batch(batch, pool_name, lease_s))
    logger.info("batch done", extra={"jobs": len(batch.job_ids)})
    return {"batchId": batch.id, "jobs": len(batch.job_ids)}
