"""The way past the resolver for requests with nothing unusual about them.

For each request the resolver goes through its middlewares and looks at each field's type anew,
a fifth of what a request costs the server. Here the fields that it has made for a route are asked
directly. What is not plainly right (an error, something given twice, a path that ends in a slash)
is left to the resolver, which takes it or says what is wrong with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

from aws_lambda_powertools.event_handler.api_gateway import Route
from aws_lambda_powertools.event_handler.openapi.compat import ModelField, is_scalar_field

from synapse.api.bodies import parsed
from synapse.domain.access import Principal

Arguments = dict[str, Any]
Call = TypeVar("Call")
Make = Callable[[Principal | None, Arguments], Call]
"""The call that a handler's arguments make, for who sends the request."""

Given = Mapping[str, list[str]]


class Shortcuts(Generic[Call]):
    """Routes by method and path."""

    def __init__(self) -> None:
        self._fixed: dict[tuple[str, str], _Shortcut[Call]] = {}
        self._with_parameters: list[_Shortcut[Call]] = []

    def add(self, route: Route, make: Make[Call]) -> None:
        """Let requests of `route` pass here."""
        shortcut = _Shortcut(route, make)
        if route.rule.groups:
            self._with_parameters.append(shortcut)
        else:
            self._fixed[route.method, route.path] = shortcut

    def call(self, event: Mapping[str, Any], caller: Principal | None) -> Call | None:
        """The call that a request makes, or None if the resolver has to look at it.

        Raises:
            SynapseError: what a request may not hold, or who sends it may not do.
        """
        method, path = str(event.get("httpMethod")), str(event.get("path"))
        shortcut = self._fixed.get((method, path))
        in_path: dict[str, str] = {}
        if shortcut is None:
            shortcut, in_path = self._matched(method, path)
        if shortcut is None or shortcut.fields is None:
            return None
        arguments = shortcut.fields.arguments(event, in_path)
        return None if arguments is None else shortcut.make(caller, arguments)

    def _matched(self, method: str, path: str) -> tuple[_Shortcut[Call] | None, dict[str, str]]:
        for shortcut in () if path.endswith("/") else self._with_parameters:
            if shortcut.route.method == method and (found := shortcut.route.rule.match(path)):
                return shortcut, found.groupdict()
        return None, {}


@dataclass(frozen=True)
class _Shortcut(Generic[Call]):
    route: Route
    make: Make[Call]

    @cached_property
    def fields(self) -> _Fields | None:
        """What the route takes; None where that is more than is read here. Made when first used."""
        return _fields_of(self.route)


@dataclass(frozen=True, slots=True)
class _Text:
    """A field that is not the body: its name in a request, and what it is if it is not there."""

    name: str
    field: ModelField
    default: Any


@dataclass(frozen=True, slots=True)
class _Fields:
    """The fields of a route."""

    path: Sequence[_Text]
    query: Sequence[_Text]
    headers: Sequence[_Text]
    body: ModelField | None

    def arguments(self, event: Mapping[str, Any], in_path: Mapping[str, str]) -> Arguments | None:
        """What the handler is called with, if all of it is there and right."""
        read: Arguments = {}
        path = {name: [value] for name, value in in_path.items()}
        query = _given(event, "queryStringParameters", "multiValueQueryStringParameters")
        headers = _given(event, "headers", "multiValueHeaders") if self.headers else {}
        headers = {name.lower(): values for name, values in headers.items()}
        is_right = (
            _take(self.path, path, read)
            and _take(self.query, query, read)
            and _take(self.headers, headers, read)
            and (self.body is None or _take_body(self.body, event, read))
        )
        return read if is_right else None


def _fields_of(route: Route) -> _Fields | None:
    known = route.dependant
    texts = [*known.path_params, *known.query_params, *known.header_params]
    is_plain = all(is_scalar_field(field) for field in texts)
    bodies = known.body_params
    if not is_plain or known.cookie_params or known.dependencies or len(bodies) > 1:
        return None
    return _Fields(
        [_text(field.alias, field) for field in known.path_params],
        [_text(field.alias, field) for field in known.query_params],
        [_text(field.alias.lower(), field) for field in known.header_params],
        bodies[0] if bodies else None,
    )


def _text(name: str, field: ModelField) -> _Text:
    # Scalars, which can be shared by all requests.
    return _Text(name, field, None if field.required else field.get_default())


def _given(event: Mapping[str, Any], once: str, often: str) -> Given:
    """What a proxy event tells twice over, or (by hand) only as if each were given once."""
    known: Given | None = event.get(often)
    if known:
        return known
    return {name: [value] for name, value in (event.get(once) or {}).items()}


def _take(texts: Sequence[_Text], given: Given, into: Arguments) -> bool:
    """Read texts; False if one is missing, wrong, or given more than once."""
    for text in texts:
        values = given.get(text.name)
        if values is None:
            if text.field.required:
                return False
            into[text.field.name] = text.default
        elif len(values) != 1 or not _is_valid(text.field, values[0], into):
            return False
    return True


def _take_body(field: ModelField, event: Mapping[str, Any], into: Arguments) -> bool:
    text = event.get("body")
    if not text or event.get("isBase64Encoded"):
        return False
    try:
        value = parsed(text)
    except json.JSONDecodeError:
        return False
    return _is_valid(field, value, into)


def _is_valid(field: ModelField, value: Any, into: Arguments) -> bool:
    into[field.name], errors = field.validate(value)
    return not errors
