"""Every minute: look after stale jobs and batches and dead workers, record how the others are."""

from __future__ import annotations

import time
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
        dead = [worker.id for worker in run(target().parts.workers.expire(time.time()))]
        workers = run(target().pinger.ping())
    unhealthy = [f"{worker.model}@{worker.pool}" for worker in workers if not worker.healthy]
    logger.info("pinged", extra={"workers": len(workers), "unhealthy": unhealthy, "swept": swept})
    if restarted:
        logger.warning("file batches started again", extra={"batches": restarted})
    if dead:
        logger.warning("workers gave no sign of life", extra={"dead": dead})
    return {
        "workers": len(workers),
        "dead": dead,
        "unhealthy": unhealthy,
        "swept": dict(swept),
        "restarted": list(restarted),
    }
