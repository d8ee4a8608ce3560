"""What an operator does with the users of one machine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace

from synapse.application.model_names import check_models
from synapse.domain.access import DEFAULT_TENANT, ORDINARY_SCOPES, Scope
from synapse.domain.errors import InvalidRequest, Unavailable
from synapse.domain.job import SlaTier
from synapse.domain.user import User, checked_password, checked_username
from synapse.ports import Clock
from synapse.ports.users import PasswordHasher, UserStore

WRITES = 5
"""How often a change is tried again that somebody else's change came before."""


@dataclass(frozen=True, slots=True)
class UserRights:
    """What a user may do; None is all there are."""

    tenant: str = DEFAULT_TENANT
    scopes: frozenset[Scope] = ORDINARY_SCOPES
    models: frozenset[str] | None = None
    tiers: frozenset[SlaTier] | None = None


class Users:
    """Users are made, given other passwords, and shut out; each change ends their tokens.

    `models` are the names of those that are served.
    """

    def __init__(
        self,
        store: UserStore,
        hasher: PasswordHasher,
        clock: Clock,
        models: Callable[[], Awaitable[Collection[str]]],
    ) -> None:
        self._store = store
        self._hasher = hasher
        self._clock = clock
        self._models = models

    async def add(self, name: str, password: str, rights: UserRights) -> User:
        """Make a user.

        Raises:
            InvalidRequest: the name or the password will not do, the name is taken, or a model is
                not served, or there are too many.
        """
        await check_models(rights.models, self._models)
        user = User(
            checked_username(name),
            await self._hasher.hash(checked_password(password)),
            self._clock(),
            rights.tenant,
            rights.scopes,
            rights.models,
            rights.tiers,
        )
        try:
            await self._store.create(user)
        except ValueError as error:
            raise InvalidRequest(f"username: {error}", param="username") from error
        return user

    async def set_password(self, name: str, password: str) -> User:
        """Give a user another password.

        Raises:
            InvalidRequest: there is no such user, or the password will not do.
        """
        kept = await self._hasher.hash(checked_password(password))
        return await self._change(name, lambda user: replace(user, password_hash=kept))

    async def set_disabled(self, name: str, is_disabled: bool) -> User:
        """Shut a user out, or in again.

        Raises:
            InvalidRequest: there is no such user.
        """
        return await self._change(name, lambda user: replace(user, is_disabled=is_disabled))

    async def all(self) -> Sequence[User]:
        """The users there are, by name."""
        return await self._store.users()

    async def _change(self, name: str, change: Callable[[User], User]) -> User:
        for _ in range(WRITES):
            user = await self._store.get(name)
            if user is None:
                raise InvalidRequest(f"username: there is no user {name!r}", param="username")
            changed = replace(
                change(user), generation=user.generation + 1, revision=user.revision + 1
            )
            if await self._store.replace(changed):
                return changed
        raise Unavailable(f"the user {name!r} is being changed by others")
