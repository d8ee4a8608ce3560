"""Whether a token is good: its form, its signature, its claims, in this order."""

from __future__ import annotations

import hashlib
import json
import logging
from base64 import urlsafe_b64decode
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from jwt import PyJWS
from jwt.exceptions import PyJWTError

from synapse.adapters.tokens.key_set import ALGORITHMS, VerificationKey
from synapse.domain.access import REFUSED, Principal
from synapse.domain.errors import Unauthenticated
from synapse.domain.token_claims import ClaimsRefused, TokenRules, good_until, principal_of
from synapse.ports import Clock
from synapse.ports.tokens import TokenVerifier

audit = logging.getLogger("synapse.audit")

MAX_TOKEN_CHARS = 8192
MAX_KEY_ID_CHARS = 256
TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})
"""Tokens of other types (of logging out, of proving possession, …) are signed by the same keys."""

TRUSTED_S = 60.0
"""For how long a token is not verified anew."""

MAX_TRUSTED = 10_000


class KeySource(Protocol):
    """Where the keys of an issuer are from."""

    async def find(self, key_id: str | None, algorithm: str) -> VerificationKey | None:
        """The key for a token of that header, if the issuer has it; may raise Unavailable."""
        ...


@dataclass(frozen=True, slots=True)
class Verified:
    """A good token: for whom it speaks, all it says, and until when it need not be looked at."""

    principal: Principal
    claims: Mapping[str, Any]
    good_until: float


class JwtVerifier:
    """See the port `TokenVerifier`: the tokens of one issuer."""

    def __init__(self, rules: TokenRules, keys: KeySource, clock: Clock) -> None:
        self._rules = rules
        self._keys = keys
        self._clock = clock
        self._jws = PyJWS(algorithms=sorted(ALGORITHMS))
        self._trusted: OrderedDict[bytes, Verified] = OrderedDict()

    async def verify(self, token: str) -> Principal:
        """See the port."""
        return (await self.verified(token)).principal

    async def verified(self, token: str) -> Verified:
        """What a good token says.

        Raises:
            Unauthenticated: it is none.
            Unavailable: the issuer's keys cannot be had.
        """
        name = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        now = self._clock()
        known = self._trusted.get(name)
        if known is not None and now < known.good_until:
            return known
        self._trusted.pop(name, None)
        verified = await self._looked_at(token, now)
        self._trusted[name] = verified
        if len(self._trusted) > MAX_TRUSTED:
            self._trusted.popitem(last=False)
        return verified

    async def _looked_at(self, token: str, now: float) -> Verified:
        header = header_of(token)
        algorithm, key_id = str(header["alg"]), header.get("kid")
        key = await self._keys.find(key_id, algorithm)
        if key is None or algorithm not in key.algorithms:
            raise refused("signed with an unknown key")
        try:
            signed = self._jws.decode_complete(token, key.key, algorithms=[algorithm])
        except PyJWTError as error:
            raise refused(f"not signed well: {type(error).__name__}") from error
        claims = _json_object(signed["payload"])
        try:
            until = good_until(claims, self._rules, now)
            principal = principal_of(claims, self._rules)
        except ClaimsRefused as error:
            raise refused(str(error)) from error
        return Verified(principal, claims, min(until, now + TRUSTED_S))


class VerifierByIssuer:
    """See the port `TokenVerifier`: each token goes to the verifier of the issuer it names."""

    def __init__(self, verifiers: Mapping[str, TokenVerifier]) -> None:
        self._verifiers = verifiers

    async def verify(self, token: str) -> Principal:
        """See the port."""
        header_of(token)
        issuer = _json_object(_decoded(token.split(".")[1])).get("iss")
        verifier = self._verifiers.get(issuer) if isinstance(issuer, str) else None
        if verifier is None:
            raise refused("of an unknown issuer")
        return await verifier.verify(token)


def header_of(token: str) -> dict[str, Any]:
    """The header of a token that may be worth verifying.

    Raises:
        Unauthenticated: it has not the form of one, or says that it is something else.
    """
    if len(token) > MAX_TOKEN_CHARS or not token.isascii() or token.count(".") != 2:
        raise refused("no signed token")
    header = _json_object(_decoded(token.partition(".")[0]))
    algorithm, key_id = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise refused("signed in a way that is not accepted")
    if not isinstance(key_id, str | None) or len(key_id or "") > MAX_KEY_ID_CHARS:
        raise refused("its kid is no name")
    # We know no extension, so none can be critical to us (RFC 7515 §4.1.11).
    if "crit" in header or header.get("b64", True) is not True:
        raise refused("with unknown extensions")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in TYPES:
        raise refused("of another type")
    return header


def refused(cause: str) -> Unauthenticated:
    """The refusal of a token; the cause is for the log only."""
    audit.warning("token refused: %s", cause)
    return Unauthenticated(REFUSED)


def _decoded(part: str) -> bytes:
    try:
        return urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError as error:
        raise refused("not base64url") from error


def _json_object(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise refused("not JSON") from error
    if not isinstance(found, dict):
        raise refused("not a JSON object")
    return found
