"""The batcher → one batch on one pool. The error's class name tells the batcher what to do.

The pinger → a tiny inference, or only a call that keeps the environment warm.
The profiler → one measurement.
"""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools import Tracer
from aws_lambda_powertools.utilities.typing import LambdaContext

from synapse.adapters.codec import runner_order_from_event
from synapse.adapters.probe_events import is_probe
from synapse.adapters.profile_events import (
    MEASURE,
    measured_to_event,
    step_of,
    target_from_event,
)
from synapse.aws_fleet import fleet_target
from synapse.aws_loop import run
from synapse.aws_profiling import profiler_of
from synapse.observability import lambda_logger

logger = lambda_logger()
tracer = Tracer()

SPARE_S = 10.0
"""Of an invocation's time, for what is not measuring."""


@logger.inject_lambda_context(clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Run the batch; the lease lasts as long as this invocation may.

    Raises:
        EngineUnavailable: some jobs never got to work (retried, then the next pool).
        EngineFull: the same, beside others that were long at work (given back).
        EngineLost: the worker went down with some jobs (given back).
    """
    if is_probe(event):
        return run(fleet_target().probe(event))
    if step_of(event) == MEASURE:
        return _measured(event, context.get_remaining_time_in_millis() / 1000 - SPARE_S)
    batch, pool_name = runner_order_from_event(event)
    logger.append_keys(batch_id=batch.id, model=batch.model, pool=pool_name)
    lease_s = context.get_remaining_time_in_millis() / 1000
    with fleet_target().telemetry_flushed():
        run(fleet_target().run_batch(batch, pool_name, lease_s))
    logger.info("batch done", extra={"jobs": len(batch.job_ids)})
    return {"batchId": batch.id, "jobs": len(batch.job_ids)}


def _measured(event: dict[str, Any], most_s: float) -> dict[str, Any]:
    order, profiler = target_from_event(event), profiler_of(fleet_target(), most_s)
    chosen = run(profiler.target(order.model, order.version, order.pool))
    new = run(profiler.measure_next(chosen, order.done, order.budget_s))
    return measured_to_event(order.done, new)
