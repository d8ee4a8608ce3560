"""Answers of /v1/responses: items, whole or as events."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from synapse.api.openai.rendering import Body, Heading
from synapse.api.openai.requests import Ask, told_tier
from synapse.api.openai.responses.events import EventWriter
from synapse.api.openai.responses.output import Output
from synapse.api.openai.responses.rendering import begun_body, ended_body
from synapse.api.openai.responses.schemas import ResponsesRequest
from synapse.domain.inference import Completion
from synapse.domain.receipt import Receipt


@dataclass(frozen=True, slots=True)
class Items:
    """The Teller of the route; `ask` is what was read of `body`.

    `ended_at` is when the answer was there (Unix seconds), None for now.
    """

    body: ResponsesRequest
    ask: Ask
    prefix: str = "resp_"
    ended_at: int | None = None

    def whole(
        self, heading: Heading, completions: Sequence[Completion], *, keeps_tier: bool = False
    ) -> Body:
        """The body of the whole answer."""
        (completion,) = completions
        output = Output(self.ask.told, heading.id)
        output.take(completion.text, completion.logprobs)
        output.end(completion.finish_reason)
        begun = begun_body(self.body, heading)
        tier = told_tier(self.ask, keeps_tier)
        ended_at = int(time.time()) if self.ended_at is None else self.ended_at
        return ended_body(begun, output, completion.usage, tier, ended_at)

    def writer(
        self,
        heading: Heading,
        keeps_tier: Callable[[], bool],
        receipts: Callable[[], Sequence[Receipt]],
    ) -> EventWriter:
        """What writes the events."""
        return EventWriter(self.body, self.ask, heading, keeps_tier, receipts)
