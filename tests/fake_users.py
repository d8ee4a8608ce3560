"""Users in a dict, and hashes that take no time."""

from __future__ import annotations

from collections.abc import Sequence

from synapse.domain.user import Grant, User


class MemoryUserStore:
    """Users by their names."""

    def __init__(self, *users: User) -> None:
        self._users = {user.name: user for user in users}

    async def create(self, user: User) -> None:
        if user.name in self._users:
            raise ValueError(f"there is a user {user.name!r} already")
        self._users[user.name] = user

    async def get(self, name: str) -> User | None:
        return self._users.get(name)

    async def users(self) -> Sequence[User]:
        return [self._users[name] for name in sorted(self._users)]

    async def replace(self, user: User) -> bool:
        if user.name not in self._users or self._users[user.name].revision != user.revision - 1:
            return False
        self._users[user.name] = user
        return True


class PlainPasswords:
    """Keeps passwords as they are behind a version, and notes what it was asked."""

    def __init__(self, version: int = 1) -> None:
        self.version = version
        self.asked: list[tuple[str | None, str]] = []

    async def hash(self, password: str) -> str:
        return f"{self.version}:{password}"

    async def matches(self, kept: str | None, password: str) -> bool:
        self.asked.append((kept, password))
        return kept is not None and kept.partition(":")[2] == password

    def is_outdated(self, kept: str) -> bool:
        return not kept.startswith(f"{self.version}:")


class PlainTokens:
    """Signs with the user's name."""

    def grant(self, user: User) -> Grant:
        return Grant(f"token-of-{user.name}-{user.generation}", 60)
