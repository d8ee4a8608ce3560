"""The function as a web server behind the Lambda Web Adapter: the same API, but streaming."""

from __future__ import annotations

# Every request needs it: gRPC is loaded while the environment is initialised, not by the first one.
import synapse.adapters.triton.engine  # noqa: F401
from synapse.api.asgi import AsgiApp, Message, Receive, Scope, Send
from synapse.bootstrap_aws import Target, target
from synapse.observability import lambda_logger

CONTEXT_HEADER = "x-amzn-request-context"
"""Where the adapter puts what API Gateway tells of a request; it lets no client set it."""


class App:
    """Writes the metrics of a request before its last bytes.

    Lambda may stop the clock as soon as those are gone.
    """

    def __init__(self, target: Target) -> None:
        self._app = AsgiApp(target.api, context_header=CONTEXT_HEADER)
        self._telemetry = target.telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def send_after_metrics(message: Message) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                self._telemetry.flush()
            await send(message)

        await self._app(scope, receive, send_after_metrics)


def create() -> App:
    """The application, made while the environment is initialised."""
    lambda_logger()
    return App(target())
