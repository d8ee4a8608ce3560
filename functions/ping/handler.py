"""Every minute: look after stale jobs and batches and dead workers, record how the others are."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from aws_lambda_powertools import Tracer
from aws_lambda_powertools.utilities.typing import LambdaContext

from synapse.bootstrap_aws import run, target
from synapse.observability import lambda_logger
from synapse.settings import Settings

logger = lambda_logger()
tracer = Tracer()

T = TypeVar("T")

SWEEP_S = 20.0
"""Of the function's 55 s: pings take 20 where a worker does not answer, and want to be told of."""


class _Chores:
    """Does each by itself: one that fails keeps none of the others from being done."""

    def __init__(self) -> None:
        self.failed: list[str] = []

    def do(self, name: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T | None:
        try:
            return run(work())
        except Exception:
            logger.exception("a chore failed", extra={"chore": name})
            self.failed.append(name)
            return None

    def look_at(self, settings: Settings) -> None:
        """Tell of warm windows that nobody heeds; what cannot be understood counts as failed."""
        if settings.homeless:
            logger.warning("warm windows of pools that are off", extra={"pools": settings.homeless})
        if settings.unheeded:
            logger.error("warm windows left out", extra={"why": settings.unheeded})
            self.failed.append("warm windows")


@logger.inject_lambda_context(clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Sweep and restart first: they must not wait for a worker that does not answer.

    Raises:
        RuntimeError: some of it failed; all of it has been tried.
    """
    chores = _Chores()
    with target().telemetry_flushed():
        swept = chores.do("sweep", lambda: target().sweeper.sweep(for_s=SWEEP_S)) or {}
        restarted = chores.do("restart", lambda: target().file_batches.restart_stale()) or ()
        expired = chores.do("expire", lambda: target().parts.workers.expire(time.time())) or ()
        workers = chores.do("ping", lambda: target().pinger.ping()) or ()
    chores.look_at(target().settings)
    dead = [worker.id for worker in expired if not worker.has_ended]
    unhealthy = [f"{worker.model}@{worker.pool}" for worker in workers if not worker.healthy]
    logger.info("pinged", extra={"workers": len(workers), "unhealthy": unhealthy, "swept": swept})
    if restarted:
        logger.warning("file batches started again", extra={"batches": restarted})
    if dead:
        logger.warning("workers gave no sign of life", extra={"dead": dead})
    if chores.failed:
        raise RuntimeError(f"failed: {', '.join(chores.failed)}")
    return {
        "workers": len(workers),
        "dead": dead,
        "unhealthy": unhealthy,
        "swept": dict(swept),
        "restarted": list(restarted),
    }
