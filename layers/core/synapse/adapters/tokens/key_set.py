"""The keys of a JWK set (RFC 7517) that tokens may be verified with: public and asymmetric ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import InvalidKeyError
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

MAX_KEYS = 64
MIN_RSA_BITS = 2048

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey

RSA_ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
CURVE_ALGORITHMS = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
EDWARDS_ALGORITHMS = frozenset({"EdDSA"})
ALGORITHMS = RSA_ALGORITHMS | frozenset(CURVE_ALGORITHMS.values()) | EDWARDS_ALGORITHMS


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key, its id if it has one, and the algorithms that it may be used with."""

    id: str | None
    algorithms: frozenset[str]
    key: PublicKey


def verification_key(key: PublicKey, key_id: str | None = None) -> VerificationKey | None:
    """The key with the algorithms it is fit for; None if it is fit for none."""
    algorithms = _fit_for(key)
    return VerificationKey(key_id, algorithms, key) if algorithms else None


def keys_of(document: Mapping[str, Any]) -> tuple[VerificationKey, ...]:
    """The keys of a set that we can use; others are left out.

    Raises:
        ValueError: it is no JWK set.
    """
    listed = document.get("keys")
    if not isinstance(listed, list):
        raise ValueError("not a JWK set: it has no list of keys")
    found = (_key_of(jwk) for jwk in listed[:MAX_KEYS] if isinstance(jwk, dict))
    return tuple(key for key in found if key is not None)


def chosen(
    keys: Sequence[VerificationKey], key_id: str | None, algorithm: str
) -> VerificationKey | None:
    """The key that a token names, or, if it names none, the only one that it can be."""
    fit = [key for key in keys if algorithm in key.algorithms]
    if key_id is None:
        return fit[0] if len(fit) == 1 else None
    return next((key for key in fit if key.id == key_id), None)


def _key_of(jwk: dict[str, Any]) -> VerificationKey | None:
    # A set with a private key in it is a mishap: that key is anybody's.
    if jwk.get("use", "sig") != "sig" or "d" in jwk:
        return None
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    parse = {
        "RSA": RSAAlgorithm.from_jwk,
        "EC": ECAlgorithm.from_jwk,
        "OKP": OKPAlgorithm.from_jwk,
    }.get(str(jwk.get("kty")))
    try:
        key = parse(jwk) if parse else None
    except (InvalidKeyError, UnsupportedAlgorithm, ValueError, TypeError, KeyError):
        return None
    if not isinstance(key, PublicKey):
        return None
    algorithms = _fit_for(key)
    if "alg" in jwk:
        algorithms &= {str(jwk["alg"])}
    key_id = jwk.get("kid")
    if not algorithms or not isinstance(key_id, str | None):
        return None
    return VerificationKey(key_id, algorithms, key)


def _fit_for(key: PublicKey) -> frozenset[str]:
    if isinstance(key, RSAPublicKey):
        return RSA_ALGORITHMS if key.key_size >= MIN_RSA_BITS else frozenset()
    if isinstance(key, EllipticCurvePublicKey):
        algorithm = CURVE_ALGORITHMS.get(key.curve.name)
        return frozenset({algorithm}) if algorithm else frozenset()
    return EDWARDS_ALGORITHMS
