"""Who a request is from: what a front door is asked before anything else is looked at."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from synapse.adapters.principal_records import principal_from_json
from synapse.application.authentication import Authenticator
from synapse.domain.access import ANYONE, Principal
from synapse.domain.errors import Forbidden, Unauthenticated, Unavailable

Identify = Callable[[Mapping[str, Any]], Awaitable[Principal]]
"""The caller of a proxy event. Raises Unauthenticated, or Unavailable if it cannot be told."""

CONTEXT_KEY = "principal"
"""Where the Lambda authorizer puts the caller in what API Gateway hands on."""

ASK = "send your API key, or a token of your identity provider, as Authorization: Bearer <key>"


async def anyone(event: Mapping[str, Any]) -> Principal:
    """Nobody is asked."""
    return ANYONE


def by_credential(authenticator: Authenticator) -> Identify:
    """Asks for a key or a token, and whose it is."""

    async def identify(event: Mapping[str, Any]) -> Principal:
        return await authenticator.principal(bearer_of(event))

    return identify


async def from_authorizer(event: Mapping[str, Any]) -> Principal:
    """Whom the Lambda authorizer let in.

    Raises:
        Unauthenticated: it was not asked; a route without it was deployed by mistake.
    """
    context = (event.get("requestContext") or {}).get("authorizer") or {}
    text = context.get(CONTEXT_KEY)
    if not isinstance(text, str):
        raise Unauthenticated(ASK)
    return principal_from_json(text)


async def recognised(identify: Identify, event: Mapping[str, Any]) -> Principal | None:
    """Who calls a route that is for everybody; None if he does not say, or it cannot be told."""
    try:
        return await identify(event)
    except (Unauthenticated, Forbidden, Unavailable):
        return None


def bearer_of(event: Mapping[str, Any]) -> str:
    """The credential of a request.

    Raises:
        Unauthenticated: there is none, or another scheme's.
    """
    headers = event.get("headers") or {}
    text = headers.get("authorization") or headers.get("Authorization") or ""
    scheme, _, credential = text.strip().partition(" ")
    if scheme.lower() != "bearer" or not credential.strip():
        raise Unauthenticated(ASK)
    return str(credential.strip())
