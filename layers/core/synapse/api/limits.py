"""What is left of a caller's limits, in the headers that OpenAI's clients read."""

from __future__ import annotations

from collections.abc import Iterable

from synapse.domain.limiting import Standing


def limit_headers(standings: Iterable[Standing | None]) -> dict[str, str]:
    """As the last of some requests has left it; nothing where nothing is limited."""
    told = [standing for standing in standings if standing is not None]
    return told[-1].headers() if told else {}
