"""Whose credential it is: an API key of ours, or a token that somebody we trust has signed."""

from __future__ import annotations

import logging
from dataclasses import replace

from synapse.domain.access import REFUSED, Principal
from synapse.domain.api_key import PREFIX, ApiKey, key_id_of
from synapse.domain.errors import Unauthenticated
from synapse.ports import Clock, KeyStore, TokenVerifier

audit = logging.getLogger("synapse.audit")


class Authenticator:
    """Tells who calls. It keeps nothing: a key that was revoked opens nothing from then on."""

    def __init__(self, keys: KeyStore, clock: Clock, tokens: TokenVerifier | None = None) -> None:
        self._keys = keys
        self._clock = clock
        self._tokens = tokens

    async def principal(self, credential: str) -> Principal:
        """The bearer of a credential.

        Raises:
            Unauthenticated: it is no good; the message does not tell why.
            Unavailable: that cannot be told at present.
        """
        if credential.startswith(PREFIX):
            key = await self._good_key(credential)
            return key.principal(await self._keys.tenant(key.tenant))
        if self._tokens is None:
            raise _refused("neither a key of ours nor a token")
        bearer = await self._tokens.verify(credential)
        tenant = await self._keys.tenant(bearer.tenant)
        return replace(bearer, tenant_limits=tenant.limits)

    async def _good_key(self, text: str) -> ApiKey:
        key_id = key_id_of(text)
        if key_id is None:
            raise _refused("malformed key")
        key, now = await self._keys.get(key_id), self._clock()
        if key is None:
            raise _refused("unknown key", key_id)
        if not key.matches(text, now):
            raise _refused("wrong secret", key_id)
        if not key.is_good(now):
            raise _refused("revoked key" if key.revoked_at is not None else "expired key", key_id)
        return key


def _refused(cause: str, key_id: str = "") -> Unauthenticated:
    audit.warning("login refused: %s %s", cause, key_id)
    return Unauthenticated(REFUSED)
