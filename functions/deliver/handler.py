"""SQS → one attempt at each delivery, side by side. What is to be tried again is sent again."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from aws_lambda_powertools import Tracer
from aws_lambda_powertools.utilities.typing import LambdaContext

from synapse.adapters.aws.webhooks import key_of_message
from synapse.aws_loop import run
from synapse.aws_webhooks import webhook_target
from synapse.domain.errors import Unavailable
from synapse.observability import lambda_logger

ATTEMPT_S = 60.0
"""How long an attempt may take, with all that is written."""

logger = lambda_logger()
tracer = Tracer()


@logger.inject_lambda_context(clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Make the attempts; a message that could not be dealt with is reported, and comes again."""
    try:
        again = run(_all(event["Records"]))
    finally:
        webhook_target().telemetry.flush()
    logger.info("delivered", extra={"tried": len(event["Records"]), "again": len(again)})
    return {"batchItemFailures": [{"itemIdentifier": each} for each in again]}


async def _all(records: list[dict[str, Any]]) -> list[str]:
    done = await asyncio.gather(*(_is_done(record) for record in records))
    return [r["messageId"] for r, is_done in zip(records, done, strict=True) if not is_done]


async def _is_done(record: dict[str, Any]) -> bool:
    """Whether nothing is left to do for a message."""
    target = webhook_target()
    try:
        delivery = await target.parts.deliveries.get(*key_of_message(record["body"]))
        if delivery is None:
            logger.warning("no such delivery", extra={"message_id": record["messageId"]})
            return True
        now = time.time()
        if delivery.due_at is not None and delivery.due_at <= now:
            # The first attempt has one message, but for SQS's own mistakes: it costs no such write.
            if delivery.attempts and not await target.parts.deliveries.take(
                delivery, now + ATTEMPT_S
            ):
                return True  # another message of it has come as well, and goes on
            delivery = await target.deliverer.attempt(delivery)
        if delivery.due_at is None:
            return True
        await target.parts.delivery_queue.send_later(delivery, delivery.due_at - time.time())
    except Unavailable as error:
        logger.warning("not tried", extra={"reason": error.message})
    except ValueError:
        logger.exception("unreadable message", extra={"message_id": record["messageId"]})
    except Exception:
        # Those beside it are none the worse for it.
        logger.exception("not tried", extra={"message_id": record["messageId"]})
    else:
        return True
    return False
