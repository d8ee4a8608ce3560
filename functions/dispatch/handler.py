"""SQS → plan batches → start the batcher. Reports failures item by item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aws_lambda_powertools import Tracer
from aws_lambda_powertools.utilities.typing import LambdaContext

from synapse.adapters.codec import message_from_json
from synapse.bootstrap_aws import run, target
from synapse.domain.batching import JobMessage
from synapse.domain.errors import Unavailable
from synapse.domain.job import JobId
from synapse.observability import lambda_logger

logger = lambda_logger()
tracer = Tracer()


@logger.inject_lambda_context(clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Dispatch the messages; what could not be read or started is delivered again, then parked."""
    messages: dict[str, JobMessage] = {}
    failed: list[str] = []
    for record in event["Records"]:
        try:
            messages[record["messageId"]] = message_from_json(record["body"])
        except ValueError:
            logger.exception("unreadable message", extra={"message_id": record["messageId"]})
            failed.append(record["messageId"])
    try:
        with target().telemetry_flushed():
            left = set(run(_dispatch(event, list(messages.values()))))
    except Unavailable:
        logger.exception("batches not started", extra={"jobs": len(messages)})
        failed.extend(messages)
    else:
        failed.extend(item for item, message in messages.items() if message.job_id in left)
    return {"batchItemFailures": [{"itemIdentifier": item} for item in failed]}


async def _dispatch(event: dict[str, Any], messages: Sequence[JobMessage]) -> Sequence[JobId]:
    gathers = target().parts.queue.gathers
    were_gathered = all(gathers(record["eventSourceARN"]) for record in event["Records"])
    return await target().dispatcher.dispatch(messages, were_gathered=were_gathered)
