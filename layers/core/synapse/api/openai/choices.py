"""Answers of chat and completions: one or more choices, whole or in chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from synapse.api.openai.chunks import ChunkWriter
from synapse.api.openai.rendering import Body, Heading, answer_body
from synapse.api.openai.requests import Ask
from synapse.domain.inference import Completion
from synapse.domain.receipt import Receipt


@dataclass(frozen=True, slots=True)
class Choices:
    """The Teller of both routes."""

    ask: Ask

    @property
    def prefix(self) -> str:
        """What kind of answer an id is of."""
        return "chatcmpl-" if self.ask.told.is_chat else "cmpl-"

    def whole(
        self, heading: Heading, completions: Sequence[Completion], *, keeps_tier: bool = False
    ) -> Body:
        """The body of the whole answer."""
        return answer_body(self.ask, heading, completions, keeps_tier=keeps_tier)

    def writer(
        self,
        heading: Heading,
        keeps_tier: Callable[[], bool],
        receipts: Callable[[], Sequence[Receipt]],
    ) -> ChunkWriter:
        """What writes the chunks."""
        return ChunkWriter(self.ask, heading, keeps_tier, receipts)
