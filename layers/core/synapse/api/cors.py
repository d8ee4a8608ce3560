"""Which web pages may call the API from a browser: none, unless their origin is named, or any is.

Keys and tokens travel in a header that no browser sends by itself, so no page can act for a user
behind their back; this is for pages that have a key of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from synapse.api.replies import Response
from synapse.domain.origin import ANY

METHODS = "GET, POST, PUT, DELETE"
KEPT_S = 600


class Cors:
    """Answers the questions of browsers for pages of these origins (`https://app.example.com`)."""

    def __init__(self, origins: Iterable[str]) -> None:
        self._origins = frozenset(origins)

    def preflight(self, event: Mapping[str, Any]) -> Response | None:
        """The answer, if a browser asks whether a page may call; None for any other request."""
        headers = event.get("headers") or {}
        asked = _of(headers, "access-control-request-method")
        if event.get("httpMethod") != "OPTIONS" or not asked or not self._allows(headers):
            return None
        answer = {"access-control-allow-methods": [METHODS]}
        if wanted := _of(headers, "access-control-request-headers"):
            answer["access-control-allow-headers"] = [wanted]
        answer["access-control-max-age"] = [str(KEPT_S)]
        return Response(HTTPStatus.NO_CONTENT, answer, "")

    def mark(self, event: Mapping[str, Any], headers: dict[str, list[str]]) -> None:
        """Say in an answer's headers who may read it."""
        if not self._origins:
            return
        headers["vary"] = [*headers.get("vary", []), "Origin"]
        asking = event.get("headers") or {}
        if self._allows(asking):
            allowed = ANY if ANY in self._origins else _of(asking, "origin")
            headers["access-control-allow-origin"] = [allowed]
            headers["access-control-expose-headers"] = ["*"]

    def _allows(self, headers: Mapping[str, str]) -> bool:
        origin = _of(headers, "origin")
        return bool(origin) if ANY in self._origins else origin in self._origins


def _of(headers: Mapping[str, str], name: str) -> str:
    """A header, whichever way the front door writes its name."""
    return headers.get(name) or headers.get(name.title()) or ""
