"""Turns vLLM's structured output parameters into llama.cpp's grammar fields. Pure."""

import json
import re
from collections.abc import Mapping
from typing import Any

from synapse_worker.errors import InvalidRequest

# The nested form (`structured_outputs`, once `guided_decoding`) and the flat one mean the same.
KINDS = ("json", "json_object", "regex", "choice", "grammar")
ESCAPES = {"/": r"\/", "\n": r"\n"}
NESTED = ("structured_outputs", "guided_decoding")
# LLGuidance's own keyword. Where JSON allows any whitespace, small models write nothing else until
# their tokens are used up, so it is the one space that most JSON has.
SPACING = {
    "x-guidance": {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
}


def constraint(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """At most one constraint, as fields of a llama.cpp request; nothing when there is none."""
    wanted = _wanted(parameters)
    if not wanted:
        return {}
    if len(wanted) > 1:
        raise InvalidRequest(f"'structured_outputs' holds one constraint, not {', '.join(wanted)}")
    ((kind, value),) = wanted.items()
    if kind == "json_object":
        return {"json_schema": {"type": "object", **SPACING}}
    if kind == "json":
        return {"json_schema": {**_schema(value), **SPACING}}
    if kind == "choice":
        return {"grammar": _choice_grammar(value)}
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"'structured_outputs.{kind}' must be a non-empty string")
    return {"grammar": _regex_grammar(value) if kind == "regex" else value}


def _wanted(parameters: Mapping[str, Any]) -> dict[str, Any]:
    wanted: dict[str, Any] = {}
    for name, value in parameters.items():
        if value is None:
            continue
        if name not in NESTED:
            wanted[name.removeprefix("guided_")] = value
            continue
        value = _nested(name, value)
        for kind, inner in value.items():
            if kind not in KINDS:
                raise InvalidRequest(f"'{name}.{kind}' is not supported by this engine")
            wanted |= {kind: inner} if inner not in (None, False) else {}
    return wanted


def _nested(name: str, value: Any) -> dict[str, Any]:
    """An object, or its JSON text, which is how Triton's vLLM backend takes it."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise InvalidRequest(f"'{name}' is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidRequest(f"'{name}' must be an object")
    return value


def _schema(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise InvalidRequest(f"'structured_outputs.json' is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidRequest("'structured_outputs.json' must be an object")
    return value


def _choice_grammar(value: Any) -> str:
    """GBNF quotes and escapes strings the way JSON does."""
    if not isinstance(value, list) or not value or not all(isinstance(c, str) and c for c in value):
        raise InvalidRequest("'structured_outputs.choice' must be a list of non-empty strings")
    return "root ::= " + " | ".join(json.dumps(choice) for choice in value)


def _regex_grammar(pattern: str) -> str:
    """LLGuidance's own syntax; GBNF has no regular expressions."""
    escaped = re.sub(
        r"\\.|[/\n]", lambda found: ESCAPES.get(found[0], found[0]), pattern, flags=re.DOTALL
    )
    return "%llguidance {}\nstart: /" + escaped + "/"
