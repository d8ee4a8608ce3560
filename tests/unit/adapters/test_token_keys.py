"""Which keys of an issuer are used, and when it is asked for them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from synapse.adapters.tokens.fetch import FetchError, checked_url
from synapse.adapters.tokens.jwks import ASK_AGAIN_S, ASK_FIRST_S, FRESH_S, KEPT_S, IssuerKeys
from synapse.adapters.tokens.key_set import keys_of
from synapse.domain.errors import Unavailable
from tests.fakes import FakeClock
from tests.tokens import ISSUER, SigningKey, key_set, signing_key

JWKS = f"{ISSUER}/keys"


def test_a_shared_secret_in_a_key_set_is_not_used() -> None:
    document = {"keys": [{"kty": "oct", "kid": "one", "k": "c2VjcmV0" * 8}]}

    assert keys_of(document) == ()


@pytest.mark.parametrize(
    "jwk",
    [
        {"use": "enc"},
        {"key_ops": ["sign"]},
        {"key_ops": "verify"},
        {"alg": "HS256"},
        {"alg": "RSA-OAEP"},
        {"d": "AQAB"},
        {"n": "x"},
        {"kty": "EC"},
        {"kty": ["RSA"]},
        {"kid": 7},
    ],
    ids=str,
)
def test_a_key_that_is_not_for_verifying_is_left_out_of_a_set(jwk: dict[str, Any]) -> None:
    good = signing_key("ES256", "good")

    keys = keys_of({"keys": [signing_key().jwk(**jwk), 7, good.jwk()]})

    assert [key.id for key in keys] == ["good"]


def test_a_short_rsa_key_is_left_out_of_a_set() -> None:
    weak = SigningKey("weak", rsa.generate_private_key(65537, 1024), "RS256")

    assert keys_of({"keys": [weak.jwk()]}) == ()


def test_a_key_without_an_algorithm_takes_those_of_its_kind() -> None:
    jwk = signing_key().jwk()
    del jwk["alg"]

    (key,) = keys_of({"keys": [jwk]})

    assert {"RS256", "PS256"} < key.algorithms


@pytest.mark.parametrize("document", [{}, {"keys": None}, {"keys": {"one": {}}}])
def test_what_is_no_key_set_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="JWK set"):
        keys_of(document)


class Provider:
    """An issuer that counts how often it is asked for its keys."""

    def __init__(self, *keys: SigningKey) -> None:
        self.keys = keys
        self.is_down = False
        self.asked: list[str] = []
        self.about: dict[str, Any] = {"issuer": ISSUER, "jwks_uri": JWKS}

    def fetch(self, url: str) -> dict[str, Any]:
        self.asked.append(url)
        if self.is_down:
            raise FetchError(f"{url}: down")
        return key_set(*self.keys) if url == JWKS else self.about


def the_keys(provider: Provider, clock: FakeClock, jwks_url: str = JWKS) -> IssuerKeys:
    return IssuerKeys(ISSUER, jwks_url, clock, provider.fetch)


async def found(keys: IssuerKeys, key_id: str = "one") -> str | None:
    key = await keys.find(key_id, "RS256")
    return key.id if key else None


async def test_keys_are_asked_for_once_while_they_are_fresh() -> None:
    provider, clock = Provider(signing_key()), FakeClock()
    keys = the_keys(provider, clock)

    for _ in range(3):
        assert await found(keys) == "one"
        clock.advance(FRESH_S / 3)

    assert provider.asked == [JWKS]


async def test_the_discovery_document_tells_where_keys_are() -> None:
    provider = Provider(signing_key())

    assert await found(the_keys(provider, FakeClock(), "")) == "one"

    assert provider.asked == [f"{ISSUER}/.well-known/openid-configuration", JWKS]


@pytest.mark.parametrize(
    "about",
    [
        {"issuer": "https://other.example", "jwks_uri": JWKS},
        {"issuer": ISSUER},
        {"issuer": ISSUER, "jwks_uri": "http://id.example/keys"},
        {"issuer": ISSUER, "jwks_uri": "file:///etc/passwd"},
    ],
    ids=str,
)
async def test_a_discovery_document_that_leads_astray_is_not_followed(
    about: dict[str, Any],
) -> None:
    provider = Provider(signing_key())
    provider.about = about

    with pytest.raises(Unavailable):
        await found(the_keys(provider, FakeClock(), ""))
    assert len(provider.asked) == 1


async def test_a_withdrawn_key_is_good_for_so_long_and_no_longer() -> None:
    provider, clock = Provider(signing_key(), signing_key(key_id="two")), FakeClock()
    keys = the_keys(provider, clock)
    await found(keys)
    provider.keys = (signing_key(key_id="two"),)

    clock.advance(FRESH_S)
    assert await found(keys) == "one"
    clock.advance(1)
    assert await found(keys) is None


async def test_a_new_key_is_found_at_once() -> None:
    provider, clock = Provider(signing_key()), FakeClock()
    keys = the_keys(provider, clock)
    await found(keys)
    provider.keys = (signing_key(), signing_key(key_id="two"))
    clock.advance(ASK_AGAIN_S)

    assert await found(keys, "two") == "two"


async def test_unknown_keys_make_us_ask_once_a_minute() -> None:
    provider, clock = Provider(signing_key()), FakeClock()
    keys = the_keys(provider, clock)

    for n in range(120):
        assert await found(keys, f"forged-{n}") is None
        assert await found(keys) == "one"
        clock.advance(1)

    assert len(provider.asked) == 2


async def test_a_clock_that_is_put_back_holds_up_no_question() -> None:
    provider, clock = Provider(signing_key()), FakeClock()
    keys = the_keys(provider, clock)
    await found(keys)
    provider.keys = (signing_key(key_id="two"),)

    clock.advance(-86_400)

    assert await found(keys, "two") == "two"


async def test_many_who_need_the_keys_at_once_ask_once() -> None:
    provider = Provider(signing_key())
    keys = the_keys(provider, FakeClock())

    assert set(await asyncio.gather(*(found(keys) for _ in range(50)))) == {"one"}

    assert len(provider.asked) == 1


async def test_one_who_gives_up_does_not_take_the_answer_from_the_others() -> None:
    keys = the_keys(Provider(signing_key()), FakeClock())
    first = asyncio.create_task(found(keys))
    second = asyncio.create_task(found(keys))
    await asyncio.sleep(0)

    first.cancel()

    assert await second == "one"


async def test_the_last_keys_are_used_for_a_day_while_the_issuer_is_down() -> None:
    provider, clock = Provider(signing_key()), FakeClock()
    keys = the_keys(provider, clock)
    await found(keys)
    provider.is_down = True

    clock.advance(FRESH_S + 1)
    for _ in range(10):
        assert await found(keys) == "one"
    assert len(provider.asked) == 2

    clock.advance(KEPT_S)
    with pytest.raises(Unavailable):
        await found(keys)

    provider.is_down = False
    clock.advance(ASK_AGAIN_S)
    assert await found(keys) == "one"


async def test_without_any_keys_the_issuer_is_soon_asked_again() -> None:
    provider, clock = Provider(signing_key()), FakeClock()
    provider.is_down = True
    keys = the_keys(provider, clock)
    for _ in range(3):
        with pytest.raises(Unavailable) as caught:
            await found(keys)
    assert caught.value.retry_after_s == ASK_FIRST_S
    assert len(provider.asked) == 1

    provider.is_down = False
    clock.advance(ASK_FIRST_S)
    assert await found(keys) == "one"


@pytest.mark.parametrize(
    "url",
    [
        "http://id.example/keys",
        "ftp://127.0.0.1/keys",
        "file:///etc/passwd",
        "https://",
        "https://user:secret@id.example/keys",
        "http://127.0.0.1.evil.example/",
        "",
    ],
)
def test_only_https_is_asked_and_this_machine(url: str) -> None:
    with pytest.raises(ValueError, match="https"):
        checked_url(url)


@pytest.mark.parametrize("url", ["https://id.example/keys", "http://127.0.0.1:8/", "http://[::1]/"])
def test_https_and_this_machine_are_asked(url: str) -> None:
    assert checked_url(url) == url
