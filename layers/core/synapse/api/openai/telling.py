"""What every route that generates text has of its own: how it tells an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from synapse.api.openai.rendering import Body, Heading
from synapse.api.openai.sse import Writer
from synapse.domain.inference import Completion
from synapse.domain.receipt import Receipt


class Teller(Protocol):
    """Tells an answer in the shapes of its route; the ids of answers begin with its `prefix`."""

    @property
    def prefix(self) -> str:
        """What kind of answer an id is of."""
        ...

    def whole(
        self, heading: Heading, completions: Sequence[Completion], *, keeps_tier: bool
    ) -> Body:
        """The body of the whole answer; `completions` are those of the prompts, in their order."""
        ...

    def writer(
        self,
        heading: Heading,
        keeps_tier: Callable[[], bool],
        receipts: Callable[[], Sequence[Receipt]],
    ) -> Writer:
        """What writes the answer as a stream."""
        ...
