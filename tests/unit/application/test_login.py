"""A name and a password become a token; nothing tells a guesser anything."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from synapse.application.login import LocalAccounts, Login
from synapse.application.users import UserRights, Users
from synapse.domain.access import ORDINARY_SCOPES, Scope
from synapse.domain.errors import (
    Forbidden,
    InvalidRequest,
    LimitReached,
    Overloaded,
    SynapseError,
    Unauthenticated,
    Unavailable,
)
from synapse.domain.login_throttle import FREE_ATTEMPTS
from synapse.domain.user import WRONG, Grant, User
from tests.factories import NOW
from tests.fake_users import MemoryUserStore, PlainPasswords, PlainTokens
from tests.fakes import FakeClock

HERE = "203.0.113.7"
ADA = User("ada", "1:correct horse battery", NOW)
PASSWORD = "correct horse battery"


def a_login(*users: User, hasher: PlainPasswords | None = None) -> Login:
    store = MemoryUserStore(*(users or [ADA]))
    return Login(LocalAccounts(store, hasher or PlainPasswords(), PlainTokens()), FakeClock())


async def test_the_right_password_gets_a_token() -> None:
    grant = await a_login().grant("ada", PASSWORD, HERE)

    assert grant == Grant("token-of-ada-0", 60)
    assert "token-of-ada" not in repr(grant)
    assert ADA.password_hash not in repr(ADA)


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("ada", "wrong"),
        ("bob", PASSWORD),
        ("no name\n", PASSWORD),
        ("disabled", PASSWORD),
        ("disabled", "wrong"),
        ("", ""),
    ],
)
async def test_whatever_is_wrong_the_answer_and_the_work_are_the_same(
    name: str, password: str
) -> None:
    hasher = PlainPasswords()
    login = a_login(ADA, replace(ADA, name="disabled", is_disabled=True), hasher=hasher)

    with pytest.raises(Unauthenticated) as caught:
        await login.grant(name, password, HERE)

    assert caught.value.message == WRONG
    assert [asked for _, asked in hasher.asked] == [password]


async def test_an_outdated_hash_is_renewed_and_ends_no_token() -> None:
    store = MemoryUserStore(ADA)
    login = Login(LocalAccounts(store, PlainPasswords(version=2), PlainTokens()), FakeClock())

    assert (await login.grant("ada", PASSWORD, HERE)).access_token == "token-of-ada-0"

    renewed = await store.get("ada")
    assert renewed == replace(ADA, password_hash=f"2:{PASSWORD}", revision=1)


async def test_too_many_failures_are_refused_before_the_password_is_looked_at() -> None:
    hasher = PlainPasswords()
    login = a_login(hasher=hasher)
    for _ in range(FREE_ATTEMPTS):
        with pytest.raises(Unauthenticated):
            await login.grant("ada", "wrong", HERE)

    with pytest.raises(LimitReached) as caught:
        await login.grant("ada", PASSWORD, HERE)

    assert caught.value.retry_after_s == 10
    assert len(hasher.asked) == FREE_ATTEMPTS


async def test_unknown_users_are_counted_like_those_there_are() -> None:
    login = a_login()
    for _ in range(FREE_ATTEMPTS):
        with pytest.raises(Unauthenticated):
            await login.grant("nobody", "wrong", HERE)

    with pytest.raises(LimitReached):
        await login.grant("nobody", "wrong", HERE)


class Refusing:
    def __init__(self, error: SynapseError) -> None:
        self.error = error

    async def sign_in(self, username: str, password: str) -> Grant:
        raise self.error


@pytest.mark.parametrize("error", [Unavailable("down"), Overloaded("busy"), Forbidden("new one")])
async def test_what_is_no_wrong_password_is_no_failure(error: SynapseError) -> None:
    login = Login(Refusing(error), FakeClock())

    for _ in range(4 * FREE_ATTEMPTS):
        with pytest.raises(type(error)):
            await login.grant("ada", PASSWORD, HERE)


async def test_the_log_has_no_password_and_no_name_that_is_wrong(
    caplog: pytest.LogCaptureFixture,
) -> None:
    login = a_login()
    with caplog.at_level(logging.DEBUG):
        with pytest.raises(Unauthenticated):
            await login.grant("hunter2", "hunter3", HERE)
        await login.grant("ada", PASSWORD, HERE)

    assert caplog.messages == [
        f"login refused: wrong name or password from {HERE}",
        f"logged in: ada from {HERE}",
    ]


async def served() -> list[str]:
    return ["echo", *(f"a-model-of-a-name-that-is-long-{n:03}" for n in range(200))]


def the_users(*users: User) -> tuple[Users, MemoryUserStore]:
    store = MemoryUserStore(*users)
    return Users(store, PlainPasswords(), FakeClock(), served), store


@pytest.mark.parametrize(
    ("models", "told"),
    [({"echo", "gpt-9"}, "'gpt-9' not served here"), (None, "more than 3072 bytes")],
)
async def test_a_user_is_bound_to_no_models_that_could_never_be_used(
    models: set[str] | None, told: str
) -> None:
    users, store = the_users()
    rights = UserRights(models=frozenset(models or await served()))
    with pytest.raises(InvalidRequest, match=told) as refused:
        await users.add("bob", PASSWORD, rights)
    assert refused.value.param == "models"
    assert await store.get("bob") is None


async def test_a_new_user_may_do_the_ordinary_things() -> None:
    users, store = the_users()

    user = await users.add("ada", PASSWORD, UserRights())

    assert user == ADA == await store.get("ada")
    assert user.scopes == ORDINARY_SCOPES


async def test_a_new_user_may_do_what_is_said() -> None:
    users, _ = the_users()
    rights = UserRights("acme", frozenset({Scope.ADMIN}), frozenset({"echo"}), frozenset())

    user = await users.add("ada", PASSWORD, rights)

    assert UserRights(user.tenant, user.scopes, user.models, user.tiers) == rights


@pytest.mark.parametrize("name", ["", ".ada", "a da", "a" * 65, "ada\n", "ädä", "ada/x"])
async def test_a_name_that_will_not_do_is_refused(name: str) -> None:
    users, _ = the_users()

    with pytest.raises(InvalidRequest, match="username"):
        await users.add(name, PASSWORD, UserRights())


@pytest.mark.parametrize("password", ["", "short", "e" * 11, "l" * 1025])
async def test_a_password_that_will_not_do_is_refused(password: str) -> None:
    users, store = the_users(ADA)

    with pytest.raises(InvalidRequest, match="password"):
        await users.add("bob", password, UserRights())
    with pytest.raises(InvalidRequest, match="password"):
        await users.set_password("ada", password)

    assert await store.users() == [ADA]


async def test_a_name_is_given_once() -> None:
    users, store = the_users(ADA)

    with pytest.raises(InvalidRequest, match="already"):
        await users.add("ada", "another password", UserRights())
    assert await store.get("ada") == ADA


async def test_another_password_and_being_shut_out_end_the_tokens_there_are() -> None:
    users, _ = the_users(ADA)

    changed = await users.set_password("ada", "another password")
    disabled = await users.set_disabled("ada", is_disabled=True)
    enabled = await users.set_disabled("ada", is_disabled=False)

    assert changed.password_hash == "1:another password"
    assert [each.is_disabled for each in (disabled, enabled)] == [True, False]
    assert [each.generation for each in (changed, disabled, enabled)] == [1, 2, 3]
    assert await users.all() == [enabled]


async def test_nobody_is_not_changed() -> None:
    users, _ = the_users()

    with pytest.raises(InvalidRequest, match="no user 'ada'"):
        await users.set_disabled("ada", is_disabled=True)


async def test_a_change_waits_for_those_of_others() -> None:
    class Contended(MemoryUserStore):
        losses = 2

        async def replace(self, user: User) -> bool:
            if self.losses:
                self.losses -= 1
                current = await self.get(user.name)
                assert current is not None
                await super().replace(
                    replace(current, tenant="moved", revision=current.revision + 1)
                )
            return await super().replace(user)

    store = Contended(ADA)

    changed = await Users(store, PlainPasswords(), FakeClock(), served).set_disabled(
        "ada", is_disabled=True
    )

    assert (changed.tenant, changed.is_disabled) == ("moved", True)
    assert await store.get("ada") == changed
