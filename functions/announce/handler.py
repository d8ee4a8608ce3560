"""The tables' streams → deliveries of what has ended. Stops at the first that could not be made."""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools import Tracer
from aws_lambda_powertools.utilities.typing import LambdaContext

from synapse.aws_loop import run
from synapse.aws_webhooks import webhook_target
from synapse.domain.errors import Unavailable
from synapse.observability import lambda_logger

logger = lambda_logger()
tracer = Tracer()


@logger.inject_lambda_context(clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Announce each record; the stream gives those from the failed one on again."""
    for record in event["Records"]:
        number = record["dynamodb"].get("SequenceNumber", "")
        try:
            run(_announce(record))
        except Unavailable as error:
            logger.warning("not announced", extra={"reason": error.message, "record": number})
            return {"batchItemFailures": [{"itemIdentifier": number}]}
        except (KeyError, TypeError, ValueError):
            # It would hold up all that come after it for a day.
            logger.exception("unreadable record", extra={"record": number})
    return {"batchItemFailures": []}


async def _announce(record: dict[str, Any]) -> None:
    target = webhook_target()
    event = await target.event_of(record)
    if event is not None:
        await target.announcer.announce([event])
        logger.info("announced", extra={"subject": event.subject, "type": event.type.value})
