"""What a new key may do: never more than whoever makes it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from synapse.domain.access import NO_LIMITS, ORDINARY_SCOPES, Limits, Principal, Scope
from synapse.domain.api_key import ApiKey
from synapse.domain.errors import Forbidden
from synapse.domain.job import SlaTier

T = TypeVar("T", bound=str)

MORE_THAN_ITS_MAKER = "more_than_its_maker"


@dataclass(frozen=True, slots=True)
class Rights:
    """What a key may do and for how long; None is no bound, or in a wish: as much as can be had."""

    scopes: frozenset[Scope] = ORDINARY_SCOPES
    models: frozenset[str] | None = None
    tiers: frozenset[SlaTier] | None = None
    limits: Limits = NO_LIMITS
    expires_at: float | None = None

    @staticmethod
    def of_key(key: ApiKey) -> Rights:
        """Those that a key has."""
        return Rights(key.scopes, key.models, key.tiers, key.limits, key.expires_at)

    @staticmethod
    def of_caller(caller: Principal, expires_at: float | None) -> Rights:
        """Those of a caller whose own credential is good until then."""
        return Rights(caller.scopes, caller.models, caller.tiers, caller.limits, expires_at)


def granted(wish: Rights, maker: Rights) -> Rights:
    """What the wish comes to: where it has no bound, its maker's holds.

    Raises:
        Forbidden: it is for more than its maker has.
    """
    return Rights(
        scopes=_part("scopes", wish.scopes, maker.scopes),
        models=_part_or_all("models", wish.models, maker.models),
        tiers=_part_or_all("tiers", wish.tiers, maker.tiers),
        limits=_limits(wish.limits, maker.limits),
        expires_at=_no_longer(wish.expires_at, maker.expires_at),
    )


_LIMITS = tuple(field.name for field in fields(Limits))


def _part_or_all(
    name: str, wish: frozenset[T] | None, maker: frozenset[T] | None
) -> frozenset[T] | None:
    if wish is None or maker is None:
        return maker if wish is None else wish
    return _part(name, wish, maker)


def _part(name: str, wish: frozenset[T], maker: frozenset[T]) -> frozenset[T]:
    if too_much := wish - maker:
        raise _refused(f"{name}: {_named(too_much)}", f"it has {_named(maker)}")
    return wish


def _limits(wish: Limits, maker: Limits) -> Limits:
    bounds: dict[str, Any] = {name: _at_most(name, wish, maker) for name in _LIMITS}
    return Limits(**bounds)


def _at_most(name: str, wish: Limits, maker: Limits) -> float | None:
    wished: float | None = getattr(wish, name)
    most: float | None = getattr(maker, name)
    if wished is not None and most is not None and wished > most:
        raise _refused(f"limits.{name}: {wished:g}", f"it has {most:g}")
    return most if wished is None else wished


def _no_longer(wish: float | None, maker: float | None) -> float | None:
    if wish is not None and maker is not None and wish > maker:
        raise _refused("expires_in_s: so long", "it ends sooner itself")
    return maker if wish is None else wish


def _refused(what: str, has: str) -> Forbidden:
    return Forbidden(
        f"{what} is more than the key or token has that asks for it: {has}",
        code=MORE_THAN_ITS_MAKER,
    )


def _named(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
