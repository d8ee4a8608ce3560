"""Users of one machine, who log in with a password, and what a login gives them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from synapse.domain.access import DEFAULT_TENANT, ORDINARY_SCOPES, Scope
from synapse.domain.errors import InvalidRequest
from synapse.domain.job import SlaTier

MIN_PASSWORD_CHARS = 12
MAX_PASSWORD_CHARS = 1024

WRONG = "the username or the password is wrong"
"""The same for users that there are, that there are not, and that are disabled."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")


@dataclass(frozen=True, slots=True)
class User:
    """What is kept of a user. Times are seconds since the epoch.

    `revision` counts the changes: each is conditional on the one before. `generation` counts those
    that end the tokens given out before: another password, other rights, being disabled.
    """

    name: str
    password_hash: str = field(repr=False)
    created_at: float
    tenant: str = DEFAULT_TENANT
    scopes: frozenset[Scope] = ORDINARY_SCOPES
    models: frozenset[str] | None = None
    tiers: frozenset[SlaTier] | None = None
    is_disabled: bool = False
    generation: int = 0
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Grant:
    """What a login gives: a bearer token, and for how many seconds it holds."""

    access_token: str = field(repr=False)
    expires_in_s: int


def is_username(text: str) -> bool:
    """Whether a user may be called that."""
    return _NAME.fullmatch(text) is not None


def checked_username(text: str) -> str:
    """A name for a new user.

    Raises:
        InvalidRequest: nobody may be called that.
    """
    if not is_username(text):
        raise InvalidRequest(
            "username: 1 to 64 letters (a to z), digits and . _ @ + -, a letter or digit first",
            param="username",
        )
    return text


def checked_password(text: str) -> str:
    """A new password.

    Raises:
        InvalidRequest: it is too short, or absurdly long.
    """
    if not MIN_PASSWORD_CHARS <= len(text) <= MAX_PASSWORD_CHARS:
        raise InvalidRequest(
            f"password: must have {MIN_PASSWORD_CHARS} to {MAX_PASSWORD_CHARS} characters",
            param="password",
        )
    return text
