"""An identity provider of the tests' own: keys, what it publishes of them, and tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from synapse.adapters.tokens.key_set import VerificationKey, chosen, keys_of
from synapse.domain.token_claims import TokenRules
from tests.factories import NOW

ISSUER = "https://id.example"
AUDIENCE = "synapse-api"
RULES = TokenRules(ISSUER, frozenset({AUDIENCE}))

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True)
class SigningKey:
    """A key of the provider's."""

    id: str
    key: PrivateKey
    algorithm: str

    def jwk(self, **more: Any) -> dict[str, Any]:
        """What is published of it."""
        public = self.key.public_key()
        if isinstance(public, rsa.RSAPublicKey):
            text = RSAAlgorithm.to_jwk(public)
        elif isinstance(public, ec.EllipticCurvePublicKey):
            text = ECAlgorithm.to_jwk(public)
        else:
            text = OKPAlgorithm.to_jwk(public)
        fields = {"kid": self.id, "alg": self.algorithm, "use": "sig"}
        return {**json.loads(text), **fields, **more}

    def token(
        self, claims: Mapping[str, Any] | None = None, headers: Mapping[str, Any] | None = None
    ) -> str:
        """A token that says so."""
        says = dict(a_claim_set() if claims is None else claims)
        return jwt.encode(says, self.key, self.algorithm, {"kid": self.id, **(headers or {})})


@cache
def signing_key(algorithm: str = "RS256", key_id: str = "one") -> SigningKey:
    """A key, made once for all tests."""
    curves = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
    key: PrivateKey
    if algorithm == "EdDSA":
        key = ed25519.Ed25519PrivateKey.generate()
    elif algorithm in curves:
        key = ec.generate_private_key(curves[algorithm])
    else:
        key = rsa.generate_private_key(65537, 2048)
    return SigningKey(key_id, key, algorithm)


def a_claim_set(**changes: Any) -> dict[str, Any]:
    """What a good token says at NOW; None leaves a claim out."""
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "user-1",
        "exp": int(NOW) + 300,
        "iat": int(NOW) - 5,
        "tenant": "acme",
        "scope": "openid synapse/inference",
        **changes,
    }
    return {name: value for name, value in claims.items() if value is not None}


def key_set(*keys: SigningKey) -> dict[str, Any]:
    """The document that a provider with these keys publishes."""
    return {"keys": [key.jwk() for key in keys]}


class FixedKeys:
    """The keys of a set, without asking anybody."""

    def __init__(self, *keys: SigningKey) -> None:
        self._keys = keys_of(key_set(*keys))

    async def find(self, key_id: str | None, algorithm: str) -> VerificationKey | None:
        return chosen(self._keys, key_id, algorithm)
