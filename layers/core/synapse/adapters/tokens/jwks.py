"""An issuer's signing keys as it publishes them, asked for seldom and kept while it is down."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from typing import Any

from synapse.adapters.tokens.fetch import FetchError, checked_url, fetch_json
from synapse.adapters.tokens.key_set import VerificationKey, chosen, keys_of
from synapse.domain.errors import Unavailable
from synapse.ports import Clock

logger = logging.getLogger(__name__)

FRESH_S = 600.0
"""For how long keys are used without a question: so long, at most, one works that was withdrawn."""

ASK_AGAIN_S = 60.0
"""Between two questions, whatever tokens come: of an unknown key, or while the issuer is down."""

ASK_FIRST_S = 5.0
"""The same while there are no keys yet."""

KEPT_S = 86_400.0
"""For how long the last keys are used when no new ones can be had."""

TIMEOUT_S = 5.0

Fetch = Callable[[str], dict[str, Any]]


class IssuerKeys:
    """The keys of an issuer; `jwks_url` spares asking its discovery document where they are."""

    def __init__(self, issuer: str, jwks_url: str, clock: Clock, fetch: Fetch = fetch_json) -> None:
        self._issuer = issuer
        self._jwks_url = jwks_url
        self._clock = clock
        self._fetch = fetch
        self._keys: tuple[VerificationKey, ...] = ()
        self._fetched_at: float | None = None
        self._asked_at: float | None = None
        self._asking: asyncio.Task[None] | None = None

    async def find(self, key_id: str | None, algorithm: str) -> VerificationKey | None:
        """The key for a token of that header; None if the issuer has none.

        Raises:
            Unavailable: the keys cannot be had.
        """
        if self._since_s(self._fetched_at) > FRESH_S:
            await self._ask()
        if self._since_s(self._fetched_at) > KEPT_S:
            raise Unavailable(
                "the identity provider's keys cannot be had at present",
                retry_after_s=int(ASK_FIRST_S),
                code="identity_provider_unavailable",
            )
        key = chosen(self._keys, key_id, algorithm)
        if key is None:
            await self._ask()
            key = chosen(self._keys, key_id, algorithm)
        return key

    def _since_s(self, moment: float | None) -> float:
        """How long ago that was: for ever if never, or if the clock was put back since."""
        passed_s = -1.0 if moment is None else self._clock() - moment
        return passed_s if passed_s >= 0 else math.inf

    async def _ask(self) -> None:
        """Ask the issuer, unless that was done just now; who comes meanwhile shares the answer."""
        if self._asking is None:
            pause_s = ASK_FIRST_S if self._fetched_at is None else ASK_AGAIN_S
            if self._since_s(self._asked_at) < pause_s:
                return
            self._asked_at = self._clock()
            self._asking = asyncio.create_task(self._refresh())
        # Who gives up does not take the answer from the others.
        await asyncio.shield(self._asking)

    async def _refresh(self) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                keys = keys_of(await asyncio.to_thread(self._document))
        except (FetchError, ValueError, TimeoutError) as error:
            logger.warning("the keys of %s cannot be had: %s", self._issuer, _cause(error))
        else:
            self._keys, self._fetched_at = keys, self._clock()
        finally:
            self._asking = None

    def _document(self) -> dict[str, Any]:
        url = self._jwks_url
        if not url:
            about = self._fetch(self._issuer.rstrip("/") + "/.well-known/openid-configuration")
            if about.get("issuer") != self._issuer:
                raise FetchError(f"its discovery document is of {about.get('issuer')!r}")
            url = checked_url(str(about.get("jwks_uri")))
        return self._fetch(url)


def _cause(error: Exception) -> str:
    return str(error) or type(error).__name__
