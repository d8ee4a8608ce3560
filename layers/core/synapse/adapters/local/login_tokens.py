"""Tokens of those who logged in on this machine, signed with a key that never leaves it."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
from pathlib import Path
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from synapse.adapters.local.failures import StorageError, explain
from synapse.adapters.tokens.key_set import VerificationKey, chosen, verification_key
from synapse.adapters.tokens.verifier import JwtVerifier, refused
from synapse.domain.access import Principal
from synapse.domain.token_claims import SCOPE_PREFIX, TokenRules
from synapse.domain.user import Grant, User
from synapse.ports import Clock
from synapse.ports.users import UserStore

ISSUER = "urn:synapse:login"
AUDIENCE = "urn:synapse:api"
RULES = TokenRules(ISSUER, frozenset({AUDIENCE}))

LIFETIME_S = 3600
ALGORITHM = "EdDSA"
GENERATION = "generation"

ACCOUNT_PREFIX = "user:"
"""So that no user is taken for an API key or another issuer's subject when usage is counted."""


class LoginTokens:
    """Signs tokens and verifies them: see the ports `TokenSigner` and `TokenVerifier`.

    A token ends with its hour, and before that with any change to its user that counts (`User`).
    """

    def __init__(self, key: Ed25519PrivateKey, users: UserStore, clock: Clock) -> None:
        self._key = key
        self._key_id = _thumbprint(key)
        self._users = users
        self._clock = clock
        self._verifier = JwtVerifier(RULES, _OwnKey(key, self._key_id), clock)

    def grant(self, user: User) -> Grant:
        """See the port."""
        now = int(self._clock())
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": ACCOUNT_PREFIX + user.name,
            "iat": now,
            "exp": now + LIFETIME_S,
            "jti": secrets.token_hex(8),
            "tenant": user.tenant,
            "scope": " ".join(SCOPE_PREFIX + scope for scope in sorted(user.scopes)),
            GENERATION: user.generation,
        }
        if user.models is not None:
            claims["models"] = sorted(user.models)
        if user.tiers is not None:
            claims["tiers"] = sorted(user.tiers)
        headers = {"kid": self._key_id, "typ": "at+jwt"}
        return Grant(jwt.encode(claims, self._key, ALGORITHM, headers), LIFETIME_S)

    async def verify(self, token: str) -> Principal:
        """See the port."""
        verified = await self._verifier.verified(token)
        name = verified.principal.account.removeprefix(ACCOUNT_PREFIX)
        user = await self._users.get(name)
        if user is None or user.is_disabled:
            raise refused("of a user who is shut out")
        if user.generation != verified.claims.get(GENERATION):
            raise refused("from before its user was changed")
        return verified.principal


class _OwnKey:
    """See `KeySource`: our own key, of which there is one."""

    def __init__(self, key: Ed25519PrivateKey, key_id: str) -> None:
        own = verification_key(key.public_key(), key_id)
        self._keys = [own] if own else []

    async def find(self, key_id: str | None, algorithm: str) -> VerificationKey | None:
        return chosen(self._keys, key_id, algorithm)


def signing_key(path: Path) -> Ed25519PrivateKey:
    """The key in that file, which is made if there is none; only its owner may read it.

    Raises:
        StorageError: it cannot be read or made, or others may read it.
    """
    try:
        if not path.exists():
            _make(path)
        if path.stat().st_mode & 0o077:
            raise StorageError(f"{path}: others may read it: chmod 600 {path}, or delete it")
        key = load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise StorageError(explain(error, path)) from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise StorageError(f"{path}: it is no key: delete it to have another made") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise StorageError(f"{path}: it is another kind of key: delete it to have one made")
    return key


def _make(path: Path) -> None:
    """Put a new key there, whole or not at all; if another process was first, its key stays."""
    pem = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(descriptor)
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink(missing_ok=True)


def _thumbprint(key: Ed25519PrivateKey) -> str:
    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return base64.urlsafe_b64encode(hashlib.sha256(raw).digest()[:12]).decode()
