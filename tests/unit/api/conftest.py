"""What all APIs read of the same handlers is read once."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator
from typing import Any, get_args

import pytest
from aws_lambda_powertools.event_handler.openapi import compat
from pydantic import BaseModel, TypeAdapter

from synapse.api import resolver

_hints: dict[Any, dict[str, Any]] = {}
_adapters: dict[Any, TypeAdapter[Any]] = {}


def hints_of(handler: Callable[..., Any], **options: Any) -> dict[str, Any]:
    key = (handler.__code__, repr(handler.__annotations__))
    if key not in _hints:
        _hints[key] = typing.get_type_hints(handler, **options)
    return _hints[key]


def adapter_of(annotated: Any) -> TypeAdapter[Any]:
    """Shared by all APIs if it is a body's, of which nothing but its model is asked."""
    model, *said = get_args(annotated)
    is_body = isinstance(model, type) and issubclass(model, BaseModel)
    if not is_body or any(info.metadata for info in said):
        return TypeAdapter(annotated)
    key = (model, repr(said))
    if key not in _adapters:
        _adapters[key] = TypeAdapter(annotated)
    return _adapters[key]


@pytest.fixture(autouse=True, scope="module")
def _types_read_once() -> Iterator[None]:
    """Nearly every test makes an API, of the same handlers; to read a body's type takes 30 ms."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resolver, "get_type_hints", hints_of)
        patch.setattr(compat, "TypeAdapter", adapter_of)
        yield
