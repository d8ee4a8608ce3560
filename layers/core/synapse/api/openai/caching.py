"""The response cache as one request uses it: asked for by a header, told of by a header."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Annotated

from aws_lambda_powertools.event_handler.openapi.params import Header

from synapse.application.direct import DirectRequest
from synapse.application.response_cache import MAX_AGE_S, ResponseCache, is_deterministic
from synapse.domain.errors import InvalidRequest
from synapse.domain.inference import Choice, Completion, Delta, Result, TokenLogprob
from synapse.domain.job import Usage

NAME = "Synapse-Cache"
MAX_AGE = re.compile(r"\s*max-age\s*=\s*(\d{1,9})\s*")

CacheHeader = Annotated[
    str | None,
    Header(
        alias=NAME,
        description=(
            "`max-age=<seconds>`: an equal deterministic request (temperature 0, or a seed) may "
            "be answered with the answer of an earlier one, and this answer is kept so long."
        ),
    ),
]


class Caching:
    """What one request wants of the cache, and what came of it."""

    def __init__(self, cache: ResponseCache, header: str | None) -> None:
        """Read the header.

        Raises:
            InvalidRequest: it is not understood.
        """
        self._cache = cache
        self._max_age_s = _max_age_s(header)
        self._status = None if header is None else "bypass"

    @property
    def headers(self) -> dict[str, str]:
        """What the reply says of it, once everything was looked up."""
        return {NAME: self._status} if self._status else {}

    def wanted(self, request: DirectRequest) -> bool:
        """Whether the cache has to do with the request."""
        return self._max_age_s > 0 and is_deterministic(request.input)

    async def lookup(self, request: DirectRequest) -> Result | None:
        """The kept answer, if there is one and the caller wants it."""
        if not self.wanted(request):
            return None
        kept = await self._cache.lookup(request)
        if self._status != "miss":
            self._status = "miss" if kept is None else "hit"
        return kept

    async def keep(self, request: DirectRequest, result: Result) -> None:
        """Keep the answer, if the caller wants it."""
        if self.wanted(request):
            await self._cache.keep(request, result, self._max_age_s)


class Collector:
    """Puts the deltas of a generation together again."""

    def __init__(self) -> None:
        self._texts: defaultdict[int, list[str]] = defaultdict(list)
        self._logprobs: defaultdict[int, list[TokenLogprob]] = defaultdict(list)
        self._reasons: dict[int, str] = {}

    def add(self, index: int, delta: Delta) -> None:
        """Take what is added to the sample number `index`."""
        self._texts[index].append(delta.text)
        self._logprobs[index] += delta.logprobs
        if delta.finish_reason is not None:
            self._reasons[index] = delta.finish_reason

    def completion(self, usage: Usage) -> Completion:
        """The whole, once every sample has ended."""
        first, *others = (
            Choice("".join(self._texts[at]), self._reasons[at], tuple(self._logprobs[at]))
            for at in sorted(self._reasons)
        )
        return Completion(first.text, first.finish_reason, usage, first.logprobs, tuple(others))


def _max_age_s(header: str | None) -> int:
    if header is None:
        return 0
    match = MAX_AGE.fullmatch(header)
    if match is None:
        raise InvalidRequest(f"{NAME}: must be max-age=<seconds>", param=NAME)
    return min(int(match[1]), MAX_AGE_S)
