"""Who vouches for a signed token."""

from __future__ import annotations

from typing import Protocol

from synapse.domain.access import Principal


class TokenVerifier(Protocol):
    """Tells whose a token is."""

    async def verify(self, token: str) -> Principal:
        """The bearer of the token; what the tenant as a whole may use is not in it.

        Raises:
            Unauthenticated: it is malformed, expired, not for us, or not of an issuer we trust.
            Unavailable: the issuer's signing keys cannot be had at present.
        """
        ...
