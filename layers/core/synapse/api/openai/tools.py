"""Tools that a model may, or must, call: what is asked of it, and how its answer is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from synapse.api.openai.calls import (
    CLOSE,
    ArgumentsReader,
    CallReader,
    HermesReader,
    OneCallReader,
)
from synapse.api.openai.schemas import MAX_STOPS, ChatRequest, NamedTool, ToolSpec
from synapse.domain.errors import InvalidRequest

ANY_OBJECT: Mapping[str, Any] = {"type": "object"}


@dataclass(frozen=True, slots=True)
class Calling:
    """How tools come into one request.

    `schema` is what the answer is held to where a call is required, `stops` what ends it besides
    the caller's own, `reader` makes what reads one choice of the answer.
    """

    tools: tuple[Mapping[str, object], ...]
    reader: Callable[[], CallReader]
    schema: Mapping[str, Any] | None = None
    stops: tuple[str, ...] = ()


def calling(body: ChatRequest) -> Calling | None:
    """What the body asks for; None if the model is not to call anything.

    Raises:
        InvalidRequest: what it says of tools contradicts itself.
    """
    tools, choice = body.tools or [], body.tool_choice
    if not tools:
        _refuse_without_tools(body)
        return None
    if choice == "none":
        return None
    described = tuple(tool.model_dump(exclude_none=True) for tool in tools)
    if isinstance(choice, NamedTool):
        function = _named(tools, choice.function.name).function
        name = function.name
        schema = function.parameters or ANY_OBJECT
        return Calling(described, lambda: ArgumentsReader(name), schema)
    if choice == "required":
        return Calling(described, OneCallReader, _any_call(tools))
    stops = () if body.parallel_tool_calls is not False else (CLOSE,)
    if len(_stops(body)) + len(stops) > MAX_STOPS:
        raise InvalidRequest(
            f"stop: at most {MAX_STOPS - 1} with parallel_tool_calls: false", param="stop"
        )
    return Calling(described, HermesReader, stops=stops)


def _refuse_without_tools(body: ChatRequest) -> None:
    if body.parallel_tool_calls is False:
        raise InvalidRequest(
            "parallel_tool_calls: is only for requests with tools", param="parallel_tool_calls"
        )
    if body.tool_choice not in (None, "none", "auto"):
        raise InvalidRequest("tool_choice: there are no tools to choose from", param="tool_choice")


def _named(tools: Sequence[ToolSpec], name: str) -> ToolSpec:
    for tool in tools:
        if tool.function.name == name:
            return tool
    param = "tool_choice.function.name"
    raise InvalidRequest(f"{param}: no tool has the name {name!r}", param=param)


def _any_call(tools: Sequence[ToolSpec]) -> Mapping[str, Any]:
    """The schema of one call of any of the tools."""
    definitions: dict[str, Any] = {}
    calls = [_call(tool, definitions) for tool in tools]
    schema = calls[0] if len(calls) == 1 else {"anyOf": calls}
    return {**schema, "$defs": definitions} if definitions else schema


def _call(tool: ToolSpec, definitions: dict[str, Any]) -> dict[str, Any]:
    name, parameters = tool.function.name, tool.function.parameters or ANY_OBJECT
    if '"$ref"' in json.dumps(parameters):
        # Its references count from its own root, so it moves as a whole and they with it.
        root = f"#/$defs/{name}"
        definitions[name] = _rebased(parameters, root)
        parameters = {"$ref": root}
    return {
        "type": "object",
        "properties": {"name": {"enum": [name]}, "arguments": parameters},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _rebased(schema: Any, root: str) -> Any:
    if isinstance(schema, list):
        return [_rebased(each, root) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    return {
        key: root + value[1:]
        if key == "$ref" and isinstance(value, str) and value.startswith("#")
        else _rebased(value, root)
        for key, value in schema.items()
    }


def _stops(body: ChatRequest) -> Sequence[str]:
    return [body.stop] if isinstance(body.stop, str) else body.stop or []
