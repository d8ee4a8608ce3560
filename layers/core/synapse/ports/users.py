"""Who logs in with a password, and where that is looked up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from synapse.domain.user import Grant, User


class SignIn(Protocol):
    """Gives tokens for passwords."""

    async def sign_in(self, username: str, password: str) -> Grant:
        """A token for the user.

        Raises:
            Unauthenticated: there is no such user, it is another password, or the user is disabled;
                nothing tells which.
            Forbidden: the password is right, but something has to be done elsewhere first.
            LimitReached: too many attempts.
            Unavailable: it cannot be told at present.
        """
        ...


class UserStore(Protocol):
    """Users by their names. All of it may raise Unavailable."""

    async def create(self, user: User) -> None:
        """Record a new user durably before returning.

        Raises:
            ValueError: the name is taken.
        """
        ...

    async def get(self, name: str) -> User | None:
        """The user of that name, also a disabled one."""
        ...

    async def users(self) -> Sequence[User]:
        """All users, by name."""
        ...

    async def replace(self, user: User) -> bool:
        """Write a changed user if what is there is the revision before `user.revision`."""
        ...


class PasswordHasher(Protocol):
    """Slow hashes of passwords."""

    async def hash(self, password: str) -> str:
        """What is kept of a password.

        Raises:
            Overloaded: too many are being hashed.
        """
        ...

    async def matches(self, kept: str | None, password: str) -> bool:
        """Whether that is the password; None takes as long, and never is.

        Raises:
            Overloaded: too many are being hashed.
        """
        ...

    def is_outdated(self, kept: str) -> bool:
        """Whether it would be hashed otherwise today."""
        ...


class TokenSigner(Protocol):
    """Makes the tokens of users who logged in."""

    def grant(self, user: User) -> Grant:
        """A token that says who the user is, and what the user may do."""
        ...
