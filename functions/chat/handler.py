"""API Gateway → the routes whose callers wait for a model, answered whole.

At AWS the function runs `run.sh` instead, which streams; an emulator can do neither that nor the
Lambda Web Adapter.
"""

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
    """Answer one proxy event."""
    with target().telemetry_flushed():
        return run(target().api.answer(event, context))
