"""The events of a streamed response, as they go over the wire."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from synapse.api.errors import ToldError
from synapse.api.openai.chunks import dumps
from synapse.api.openai.counting import UsageCount
from synapse.api.openai.rendering import Body, Heading
from synapse.api.openai.requests import Ask, told_tier
from synapse.api.openai.responses.output import Event, Output
from synapse.api.openai.responses.rendering import begun_body, ended_body, failed_body
from synapse.api.openai.responses.schemas import ResponsesRequest
from synapse.api.receipts import receipt_body
from synapse.domain.inference import Delta
from synapse.domain.receipt import Receipt, combined


class EventWriter:
    """Writes one response's events, numbered from 0.

    `keeps_tier` and `receipts` are asked at the end, when it is known who wrote and what it cost.
    """

    def __init__(
        self,
        body: ResponsesRequest,
        ask: Ask,
        heading: Heading,
        keeps_tier: Callable[[], bool],
        receipts: Callable[[], Sequence[Receipt]],
    ) -> None:
        self._ask = ask
        self._begun = begun_body(body, heading)
        self._keeps_tier = keeps_tier
        self._receipts = receipts
        self._output = Output(ask.told, heading.id)
        self._count = UsageCount()
        self._number = 0

    def begin(self) -> bytes:
        """The response as it is before anything is written."""
        return self._written(
            [
                {"type": "response.created", "response": self._begun},
                {"type": "response.in_progress", "response": self._begun},
            ]
        )

    def write(self, index: int, delta: Delta) -> bytes:
        """The events that a delta makes: often one, sometimes none."""
        self._count.add(index, delta)
        events = self._output.take(delta.text, delta.logprobs)
        if delta.finish_reason is not None:
            events += self._output.end(delta.finish_reason)
        return self._written(events)

    def end(self) -> bytes:
        """The response at its end, with its receipt beside the usage."""
        tier = told_tier(self._ask, self._keeps_tier())
        usage = self._count.usage
        response = ended_body(self._begun, self._output, usage, tier, int(time.time()))
        if receipts := self._receipts():
            response["receipt"] = receipt_body(combined(receipts)).model_dump()
        return self._written([{"type": f"response.{response['status']}", "response": response}])

    def failed(self, error: ToldError) -> bytes:
        """What ended it, as OpenAI sends it: an error, and the response that failed of it.

        OpenAI's documents have the fields of the error beside its type, its server (and so its
        clients, who raise an error for it) in an object: they are in both places.
        """
        told: Body = error["error"]
        response = failed_body(self._begun, self._output, told)
        flat = {name: told[name] for name in ("code", "message", "param")}
        return self._written(
            [
                {"type": "error", **flat, "error": told},
                {"type": "response.failed", "response": response},
            ]
        )

    def _written(self, events: Sequence[Event]) -> bytes:
        lines = []
        for event in events:
            numbered = {"type": event["type"], "sequence_number": self._number, **event}
            lines.append(f"event: {event['type']}\ndata: {dumps(numbered)}\n\n")
            self._number += 1
        return "".join(lines).encode()
