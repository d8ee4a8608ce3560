"""Which tokens pass, and which attacks do not."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import logging
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from synapse.adapters.tokens.verifier import (
    MAX_TOKEN_CHARS,
    MAX_TRUSTED,
    TRUSTED_S,
    JwtVerifier,
    VerifierByIssuer,
    header_of,
)
from synapse.domain.access import REFUSED
from synapse.domain.errors import Unauthenticated
from tests.factories import NOW
from tests.fakes import FakeClock
from tests.tokens import ISSUER, RULES, FixedKeys, SigningKey, a_claim_set, signing_key


def a_verifier(*keys: SigningKey, clock: FakeClock | None = None) -> JwtVerifier:
    return JwtVerifier(RULES, FixedKeys(*(keys or [signing_key()])), clock or FakeClock())


def segment(value: object) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def signed(head: object, claims: object) -> str:
    """A token with a good signature, whatever it says: PyJWT writes only what makes sense."""
    text = f"{segment(head)}.{segment(claims)}"
    signature = jwt.get_algorithm_by_name("RS256").sign(text.encode(), signing_key().key)
    return f"{text}.{segment(signature)}"


async def refusal(token: str, verifier: JwtVerifier | None = None) -> Unauthenticated:
    with pytest.raises(Unauthenticated) as caught:
        await (verifier or a_verifier()).verify(token)
    assert caught.value.message == REFUSED
    return caught.value


@pytest.mark.parametrize(
    "algorithm", ["RS256", "RS384", "RS512", "PS256", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
)
async def test_a_token_of_each_asymmetric_algorithm_passes(algorithm: str) -> None:
    key = signing_key(algorithm)

    principal = await a_verifier(key).verify(key.token())

    assert (principal.tenant, principal.account) == ("acme", "user-1")


@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "application/at+jwt", None])
async def test_access_tokens_say_their_type_or_nothing(kind: str | None) -> None:
    headers = {"typ": kind} if kind else {}
    token = signing_key().token(headers=headers)

    assert (await a_verifier().verify(token)).account == "user-1"


@pytest.mark.parametrize("kind", ["logout+jwt", "secevent+jwt", "dpop+jwt", "JWE", 1, ["JWT"]])
async def test_a_token_of_another_type_is_refused(kind: object) -> None:
    await refusal(signed({"alg": "RS256", "kid": "one", "typ": kind}, a_claim_set()))


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", None, 5])
async def test_an_unsigned_token_is_refused(algorithm: object) -> None:
    head = segment({"alg": algorithm, "typ": "JWT", "kid": "one"})

    await refusal(f"{head}.{segment(a_claim_set())}.")
    await refusal(f"{head}.{segment(a_claim_set())}.{segment(b'x')}")


async def test_a_public_key_is_no_secret_to_sign_with() -> None:
    public = signing_key().key.public_key()
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    pem = public.public_bytes(serialization.Encoding.PEM, kind)
    for secret in (pem, pem.strip(), json.dumps(signing_key().jwk()).encode()):
        for algorithm in ("HS256", "HS512"):
            head = {"alg": algorithm, "typ": "JWT", "kid": "one"}
            text = f"{segment(head)}.{segment(a_claim_set())}"
            mac = hmac.new(secret, text.encode(), "sha" + algorithm[2:]).digest()

            await refusal(f"{text}.{segment(mac)}")


async def test_the_key_that_a_token_brings_along_is_not_used() -> None:
    mine = signing_key(key_id="mine")
    for brought in ({"jwk": mine.jwk()}, {"jku": "https://evil.example/jwks"}):
        await refusal(mine.token(headers={**brought, "kid": "one"}))


async def test_another_s_signature_is_refused() -> None:
    good, other = signing_key().token(), signing_key(key_id="other").token()
    head, claims, signature = good.split(".")

    await refusal(f"{head}.{claims}.{other.split('.')[2]}")
    await refusal(f"{head}.{segment(a_claim_set(tenant='default'))}.{signature}")
    await refusal(f"{head}.{claims}.")


async def test_a_key_is_used_with_its_own_algorithm_only() -> None:
    key = signing_key()
    token = jwt.encode(a_claim_set(), key.key, "RS512", {"kid": "one"})

    await refusal(token)


@pytest.mark.parametrize("changes", [{"iss": "x"}, {"aud": "x"}, {"exp": NOW - 60}, {"sub": None}])
async def test_a_signed_token_that_is_not_for_us_is_refused(changes: dict[str, Any]) -> None:
    await refusal(signing_key().token(a_claim_set(**changes)))


async def test_a_token_without_a_kid_passes_if_it_can_be_only_one_key() -> None:
    key = signing_key()
    token = jwt.encode(a_claim_set(), key.key, "RS256")

    assert (await a_verifier(key, signing_key("ES256", "ec")).verify(token)).account == "user-1"
    await refusal(token, a_verifier(key, signing_key(key_id="two")))


async def test_a_key_that_is_unknown_is_refused() -> None:
    await refusal(signing_key(key_id="stranger").token())


@pytest.mark.parametrize(
    "token",
    [
        "",
        "a.b",
        "a.b.c.d.e",
        "é.é.é",
        "\ud800.a.b",
        f"{segment(['RS256'])}.{segment({})}.x",
        f"{segment(b'not json')}.{segment({})}.x",
        f"{segment(b'[' * 3000)}.{segment({})}.x",
        f"{segment({'alg': 'RS256', 'kid': 7})}.{segment({})}.x",
        f"{segment({'alg': 'RS256', 'kid': 'k' * 257})}.{segment({})}.x",
        f"{segment({'alg': 'RS256', 'crit': ['exp'], 'exp': 1})}.{segment({})}.x",
        f"{segment({'alg': 'RS256', 'b64': False, 'crit': ['b64']})}.{segment({})}.x",
        "x" * MAX_TOKEN_CHARS + ".y.z",
    ],
    ids=range(13),
)
async def test_what_has_not_the_form_of_a_token_is_refused(token: str) -> None:
    await refusal(token)


@pytest.mark.parametrize("claims", [b"[]", b"7", b"not json", b"[" * 4000])
async def test_signed_claims_that_are_no_object_are_refused(claims: bytes) -> None:
    await refusal(signed({"alg": "RS256", "kid": "one"}, claims))


@given(st.text(max_size=200) | st.text("abcABC012-_.=", max_size=400))
async def test_any_text_is_refused_and_nothing_worse(token: str) -> None:
    await refusal(token)


@given(st.integers(0, 10_000), st.integers(1, 255))
async def test_a_token_with_a_byte_changed_is_refused(place: int, change: int) -> None:
    token = signing_key("ES256").token()
    place %= len(token)
    changed = chr((ord(token[place]) ^ change) & 0x7F)
    forged = token[:place] + changed + token[place + 1 :]
    # The last character of a base64 text has bits that mean nothing.
    means_the_same = place == len(token) - 1 and _decoded(forged) == _decoded(token)
    if changed != token[place] and not means_the_same:
        await refusal(forged, a_verifier(signing_key("ES256")))


def _decoded(token: str) -> bytes | None:
    """The signature of a token; None where that is no base64."""
    text = token.rpartition(".")[2]
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        return None


async def test_a_verified_token_is_trusted_for_a_minute_and_never_past_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, asked = FakeClock(), []

    class Counted(FixedKeys):
        async def find(self, key_id: str | None, algorithm: str) -> Any:
            asked.append(key_id)
            return await super().find(key_id, algorithm)

    verifier = JwtVerifier(RULES, Counted(signing_key()), clock)
    token = signing_key().token(a_claim_set(exp=NOW + TRUSTED_S * 1.5 - 30))

    for passed_s in (0, 1, TRUSTED_S - 1.5, 0.5):
        clock.advance(passed_s)
        await verifier.verify(token)
    assert len(asked) == 2

    clock.advance(TRUSTED_S / 2)
    with caplog.at_level(logging.WARNING, "synapse.audit"):
        await refusal(token, verifier)
    assert "token refused: expired" in caplog.messages


async def test_the_log_tells_why_and_never_the_token(caplog: pytest.LogCaptureFixture) -> None:
    token = signing_key(key_id="stranger").token()

    with caplog.at_level(logging.DEBUG):
        await refusal(token)

    assert caplog.messages == ["token refused: signed with an unknown key"]
    assert not any(part in caplog.text for part in token.split("."))


async def test_so_many_tokens_are_remembered_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synapse.adapters.tokens.verifier.MAX_TRUSTED", 3)
    verifier = a_verifier(signing_key("EdDSA"))

    for n in range(6):
        await verifier.verify(signing_key("EdDSA").token(a_claim_set(jti=str(n))))

    assert len(verifier._trusted) == 3
    assert MAX_TRUSTED > 3


async def test_a_token_goes_to_the_verifier_of_its_issuer() -> None:
    by_issuer = VerifierByIssuer({ISSUER: a_verifier()})

    assert (await by_issuer.verify(signing_key().token())).account == "user-1"
    others: list[object] = ["https://other.example", None, [ISSUER], {}]
    for issuer in others:
        claims = {**a_claim_set(), "iss": issuer}
        with pytest.raises(Unauthenticated):
            await by_issuer.verify(signed({"alg": "RS256", "kid": "one"}, claims))


@given(st.binary(max_size=300), st.binary(max_size=300))
async def test_any_segments_are_refused_and_nothing_worse(head: bytes, claims: bytes) -> None:
    by_issuer = VerifierByIssuer({ISSUER: a_verifier()})

    with pytest.raises(Unauthenticated):
        await by_issuer.verify(f"{segment(head)}.{segment(claims)}.{segment(b'x')}")


def test_the_header_tells_the_algorithm() -> None:
    assert header_of(signing_key().token())["alg"] == "RS256"
