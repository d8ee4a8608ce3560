"""What of a body is looked at before anybody reads it: how it is encoded, how deeply it nests."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from synapse.api.replies import JSON
from synapse.domain.errors import InvalidRequest, MalformedBody, UnsupportedEncoding
from synapse.domain.json_text import lone_surrogate_at

MAX_DEPTH = 64
"""Objects and arrays within each other; OpenAI's tools with their schemas have some twenty."""

MAX_CONTAINERS = 100_000
"""Objects and arrays in all: each costs far more memory than its two signs."""

_SIGNS = re.compile(r'"(?:[^"\\]|\\.)*+"|[\[{]|[\]}]', re.DOTALL)


def refuse_encoded(event: Mapping[str, Any]) -> None:
    """Refuse a body that would have to be decompressed: nothing tells how large it becomes.

    Raises:
        UnsupportedEncoding: it says that it is compressed.
    """
    headers = event.get("headers") or {}
    named = headers.get("content-encoding") or headers.get("Content-Encoding") or ""
    if named.strip().lower() not in ("", "identity"):
        raise UnsupportedEncoding(
            "Content-Encoding: bodies are taken as they are; send it without compression"
        )


def as_json(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """The event with its body declared as JSON: what `curl -d` sends is labelled as a form.

    Raises:
        MalformedBody: it is no JSON object (the resolver would take a list's last element), or
            nested so that it can be nothing that is asked for here.
    """
    body = event.get("body")
    if not body:
        return _without_type(event)
    if not body.lstrip().startswith("{"):
        raise MalformedBody("body: must be a JSON object")
    _check_nesting(body)
    bare = _without_type(event)
    return {**bare, "headers": {**bare["headers"], "content-type": JSON}}


def _without_type(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """The event with nothing said of what its body is: the resolver would look for a form in it."""
    said = (event.get("headers") or {}).items()
    return {**event, "headers": {k: v for k, v in said if k.lower() != "content-type"}}


def parsed(text: str) -> Any:
    """The value of JSON text.

    Raises:
        JSONDecodeError: it is none.
        MalformedBody: it has a number of thousands of digits, which Python refuses to read.
        InvalidRequest: a text in it cannot be written as UTF-8, so that nothing could keep it.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError as error:
        raise MalformedBody("body: holds a number with too many digits") from error
    place = lone_surrogate_at(text, value)
    if place is not None:
        reason = "holds half of a surrogate pair, which is no text"
        raise InvalidRequest(f"{place or 'body'}: {reason}", param=place or None)
    return value


def _check_nesting(text: str) -> None:
    containers = text.count("{") + text.count("[")
    if containers <= MAX_DEPTH:
        return
    depth = containers = 0
    for match in _SIGNS.finditer(text):
        sign = match[0]
        if sign in "[{":
            depth += 1
            containers += 1
            if depth > MAX_DEPTH:
                raise MalformedBody(f"body: nested too deeply; at most {MAX_DEPTH} levels are read")
            if containers > MAX_CONTAINERS:
                raise MalformedBody(f"body: more than {MAX_CONTAINERS} objects and arrays")
        elif sign in "]}":
            depth -= 1
