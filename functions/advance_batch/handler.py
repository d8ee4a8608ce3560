"""The file batch's state machine → one step of the batch."""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools import Tracer
from aws_lambda_powertools.utilities.typing import LambdaContext

from synapse.adapters.codec import file_batch_from_event, progress_to_event
from synapse.bootstrap_aws import run, target
from synapse.observability import lambda_logger

logger = lambda_logger()
tracer = Tracer()


@logger.inject_lambda_context(clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Advance the batch; an error is the state machine's to try again."""
    tenant, batch_id = file_batch_from_event(event)
    logger.append_keys(batch_id=batch_id)
    with target().telemetry_flushed():
        progress = run(target().advancer.advance(tenant, batch_id))
    return progress_to_event(done=progress.is_done, wait_s=progress.wait_s)
