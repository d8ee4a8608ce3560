"""Tools that a model may, or must, call: what is asked of it, and how its answer is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from synapse.api.openai.calls import (
    CLOSE,
    ArgumentsReader,
    CallReader,
    HermesReader,
    OneCallReader,
)
from synapse.api.openai.schemas import (
    MAX_STOPS,
    ChatRequest,
    FunctionSpec,
    GenerationRequest,
    NamedTool,
)
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


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a body says of tools, whichever route it came by.

    `named` is the one function that is to be called. The fields of a function stand in a tool, or
    in a choice of one, under `within`. `has_stops` tells how many texts of the caller's own end
    the answer.
    """

    functions: Sequence[FunctionSpec]
    choice: Literal["none", "auto", "required", "named"]
    named: str = ""
    one_by_one: bool = False
    has_stops: int = 0
    within: str = "function."


def wanted_tools(body: ChatRequest) -> Wanted:
    """What a chat body says of them."""
    choice = body.tool_choice or "auto"
    return Wanted(
        [tool.function for tool in body.tools or ()],
        "named" if isinstance(choice, NamedTool) else choice,
        choice.function.name if isinstance(choice, NamedTool) else "",
        body.parallel_tool_calls is False,
        stops_of(body),
    )


def calling(wanted: Wanted) -> Calling | None:
    """What is asked for; None if the model is not to call anything.

    Raises:
        InvalidRequest: what is said of tools contradicts itself.
    """
    functions = wanted.functions
    if not functions:
        _refuse_without_tools(wanted)
        return None
    if wanted.choice == "none":
        return None
    described = tuple(_described(function) for function in functions)
    if wanted.choice == "named":
        function = _named(wanted)
        name = function.name
        schema = function.parameters or ANY_OBJECT
        return Calling(described, lambda: ArgumentsReader(name), schema)
    if wanted.choice == "required":
        return Calling(described, OneCallReader, _any_call(functions))
    stops = (CLOSE,) if wanted.one_by_one else ()
    if wanted.has_stops + len(stops) > MAX_STOPS:
        raise InvalidRequest(
            f"stop: at most {MAX_STOPS - 1} with parallel_tool_calls: false", param="stop"
        )
    return Calling(described, HermesReader, stops=stops)


def stops_of(body: GenerationRequest) -> int:
    """How many texts end the answer."""
    return 1 if isinstance(body.stop, str) else len(body.stop or ())


def _described(function: FunctionSpec) -> Mapping[str, object]:
    # In a response's tools the type stands among the function's own fields.
    described = function.model_dump(exclude={"type"}, exclude_none=True)
    return {"type": "function", "function": described}


def _refuse_without_tools(wanted: Wanted) -> None:
    if wanted.one_by_one:
        raise InvalidRequest(
            "parallel_tool_calls: is only for requests with tools", param="parallel_tool_calls"
        )
    if wanted.choice not in ("none", "auto"):
        raise InvalidRequest("tool_choice: there are no tools to choose from", param="tool_choice")


def _named(wanted: Wanted) -> FunctionSpec:
    for function in wanted.functions:
        if function.name == wanted.named:
            return function
    param = f"tool_choice.{wanted.within}name"
    raise InvalidRequest(f"{param}: no tool has the name {wanted.named!r}", param=param)


def _any_call(functions: Sequence[FunctionSpec]) -> Mapping[str, Any]:
    """The schema of one call of any of the tools."""
    definitions: dict[str, Any] = {}
    calls = [_call(function, definitions) for function in functions]
    schema = calls[0] if len(calls) == 1 else {"anyOf": calls}
    return {**schema, "$defs": definitions} if definitions else schema


def _call(function: FunctionSpec, definitions: dict[str, Any]) -> dict[str, Any]:
    name, parameters = function.name, function.parameters or ANY_OBJECT
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
