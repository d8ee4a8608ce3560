"""Which scope each route asks for."""

from __future__ import annotations

import re

from synapse.domain.access import Scope

_PARAMETER = re.compile(r"<[^>]+>")


class RouteScopes:
    """Scopes by method and path; `by_route` has them by method and rule."""

    def __init__(self) -> None:
        self.by_route: dict[tuple[str, str], Scope | None] = {}
        self._fixed: dict[tuple[str, str], Scope | None] = {}
        self._with_parameters: list[tuple[str, re.Pattern[str], Scope | None]] = []

    def add(self, method: str, rule: str, scope: Scope | None) -> None:
        """Note what a route asks for; None if it is for everybody."""
        self.by_route[method, rule] = scope
        if "<" not in rule:
            self._fixed[method, rule] = scope
            return
        pattern = "[^/]*".join(re.escape(part) for part in _PARAMETER.split(rule))
        self._with_parameters.append((method, re.compile(pattern), scope))

    def of(self, method: str, path: str) -> Scope | None:
        """What a request must have; None if it is for everybody, or there is no such route."""
        path = path.rstrip("/")
        known = self._fixed.get((method, path), _NOT_FIXED)
        if known is not _NOT_FIXED:
            return known  # type: ignore[return-value]
        for of_method, pattern, scope in self._with_parameters:
            if of_method == method and pattern.fullmatch(path):
                return scope
        return None


_NOT_FIXED = object()
