"""Tokens of those who logged in: good for an hour, and no longer than their user stays the same."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from synapse.adapters.local.failures import StorageError
from synapse.adapters.local.login_tokens import (
    AUDIENCE,
    ISSUER,
    LIFETIME_S,
    LoginTokens,
    signing_key,
)
from synapse.domain.access import Principal, Scope
from synapse.domain.errors import Unauthenticated
from synapse.domain.job import SlaTier
from synapse.domain.token_claims import LEEWAY_S
from synapse.domain.user import User
from tests.factories import NOW
from tests.fake_users import MemoryUserStore
from tests.fakes import FakeClock

ADA = User(
    "ada",
    "hash",
    NOW,
    tenant="acme",
    scopes=frozenset({Scope.INFERENCE, Scope.ADMIN}),
    models=frozenset({"echo"}),
    tiers=frozenset({SlaTier.GOLD}),
)
PRINCIPAL = Principal("acme", "user:ada", ADA.scopes, ADA.models, ADA.tiers)


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


async def test_a_token_speaks_for_its_user(key: Ed25519PrivateKey) -> None:
    tokens = LoginTokens(key, MemoryUserStore(ADA), FakeClock())

    grant = tokens.grant(ADA)

    assert grant.expires_in_s == LIFETIME_S
    assert await tokens.verify(grant.access_token) == PRINCIPAL


async def test_a_user_without_bounds_has_none_and_one_without_rights_none_either(
    key: Ed25519PrivateKey,
) -> None:
    free = replace(ADA, models=None, tiers=None)
    bound = replace(ADA, name="bob", models=frozenset(), scopes=frozenset())
    tokens = LoginTokens(key, MemoryUserStore(free, bound), FakeClock())

    frees = await tokens.verify(tokens.grant(free).access_token)
    bounds = await tokens.verify(tokens.grant(bound).access_token)

    assert (frees.models, frees.tiers) == (None, None)
    assert (bounds.models, bounds.scopes) == (frozenset(), frozenset())


async def test_a_token_ends_after_its_hour(key: Ed25519PrivateKey) -> None:
    clock = FakeClock()
    tokens = LoginTokens(key, MemoryUserStore(ADA), clock)
    token = tokens.grant(ADA).access_token

    clock.advance(LIFETIME_S)
    assert await tokens.verify(token) == PRINCIPAL
    clock.advance(LEEWAY_S)
    with pytest.raises(Unauthenticated):
        await tokens.verify(token)


@pytest.mark.parametrize(
    "changes", [{"is_disabled": True}, {"generation": 1}, {"is_disabled": True, "generation": 1}]
)
async def test_a_change_to_the_user_ends_the_tokens_at_once(
    key: Ed25519PrivateKey, changes: dict[str, Any]
) -> None:
    users = MemoryUserStore(ADA)
    tokens = LoginTokens(key, users, FakeClock())
    token = tokens.grant(ADA).access_token
    assert await tokens.verify(token) == PRINCIPAL

    await users.replace(replace(ADA, revision=1, **changes))

    with pytest.raises(Unauthenticated):
        await tokens.verify(token)


async def test_a_change_that_does_not_count_ends_no_token(key: Ed25519PrivateKey) -> None:
    users = MemoryUserStore(ADA)
    tokens = LoginTokens(key, users, FakeClock())
    token = tokens.grant(ADA).access_token

    await users.replace(replace(ADA, revision=1, password_hash="renewed"))

    assert await tokens.verify(token) == PRINCIPAL


async def test_a_token_of_a_user_who_is_gone_is_refused(key: Ed25519PrivateKey) -> None:
    tokens = LoginTokens(key, MemoryUserStore(), FakeClock())

    with pytest.raises(Unauthenticated):
        await tokens.verify(tokens.grant(ADA).access_token)


async def test_another_machine_s_token_is_refused(key: Ed25519PrivateKey) -> None:
    tokens = LoginTokens(key, MemoryUserStore(ADA), FakeClock())
    others = LoginTokens(Ed25519PrivateKey.generate(), MemoryUserStore(ADA), FakeClock())

    with pytest.raises(Unauthenticated):
        await tokens.verify(others.grant(ADA).access_token)


async def test_a_token_tells_no_more_than_it_must(key: Ed25519PrivateKey) -> None:
    token = LoginTokens(key, MemoryUserStore(ADA), FakeClock()).grant(ADA).access_token

    claims = jwt.decode(token, options={"verify_signature": False})

    assert set(claims) == {
        *("iss", "aud", "sub", "iat", "exp", "jti", "tenant", "scope", "generation"),
        *("models", "tiers"),
    }
    assert (claims["iss"], claims["aud"]) == (ISSUER, AUDIENCE)


def test_the_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "login-key.pem"

    first, second = signing_key(path), signing_key(path)

    assert first.private_bytes_raw() == second.private_bytes_raw()
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["login-key.pem"]


async def test_of_many_that_make_the_key_at_once_all_have_the_same(tmp_path: Path) -> None:
    path = tmp_path / "login-key.pem"
    loop = asyncio.get_running_loop()

    with ThreadPoolExecutor(8) as threads:
        keys = await asyncio.gather(
            *(loop.run_in_executor(threads, signing_key, path) for _ in range(8))
        )

    assert len({key.private_bytes_raw() for key in keys}) == 1


def test_a_key_that_others_may_read_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "login-key.pem"
    signing_key(path)
    path.chmod(0o640)

    with pytest.raises(StorageError, match="chmod 600"):
        signing_key(path)


@pytest.mark.parametrize("text", ["", "no key", "-----BEGIN PRIVATE KEY-----\nAA\n"])
def test_a_damaged_key_is_told_of_with_a_remedy(tmp_path: Path, text: str) -> None:
    path = tmp_path / "login-key.pem"
    path.touch(0o600)
    path.write_text(text)

    with pytest.raises(StorageError, match="delete it"):
        signing_key(path)


def test_a_folder_that_is_not_there_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="login-key"):
        signing_key(tmp_path / "nowhere" / "login-key.pem")
