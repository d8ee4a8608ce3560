"""Every minute: look after stale jobs and batches, keep the workers warm, record how they are."""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools import Tracer
from aws_lambda_powertools.utilities.typing import LambdaContext

from synapse.bootstrap_aws import run, target
from synapse.observability import lambda_logger

logger = lambda_logger()
tracer = Tracer()


@logger.inject_lambda_context(clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Sweep and restart first: they must not wait for a worker that does not answer."""
    with target().telemetry_flushed():
        swept = run(target().sweeper.sweep())
        restarted = run(target().file_batches.restart_stale())
        workers = run(target().pinger.ping())
    unhealthy = [f"{worker.model}@{worker.pool}" for worker in workers if not worker.healthy]
    logger.info("pinged", extra={"workers": len(workers), "unhealthy": unhealthy, "swept": swept})
    if restarted:
        logger.warning("file batches started again", extra={"batches": restarted})
    return {
        "workers": len(workers),
        "unhealthy": unhealthy,
        "swept": dict(swept),
        "restarted": list(restarted),
    }
