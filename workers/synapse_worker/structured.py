"""Turns vLLM's structured output parameters into llama.cpp's grammar fields. Pure.

LLGuidance follows rules and references by calling itself, without a bound: a chain of thousands
is the end of the process, and of everybody's work in it. So they are counted here first.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from synapse_worker.errors import InvalidRequest
from synapse_worker.gbnf import MAX_RULES, to_lark

# The nested form (`structured_outputs`, once `guided_decoding`) and the flat one mean the same.
KINDS = ("json", "json_object", "regex", "choice", "grammar")
ESCAPES = {"/": r"\/", "\n": r"\n"}
NESTED = ("structured_outputs", "guided_decoding")
LARK = "%llguidance"
MAX_CHARS = 64 * 1024
MAX_GRAMMAR_CHARS = 32 * 1024
"""Many alternatives take LLGuidance their number squared: at this size a second or two."""

MAX_LEVELS = 800
"""Of a schema and of what it refers to, all together; some 3,000 have ended an engine."""
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
        return {"json_schema": {**_bounded(_schema(value)), **SPACING}}
    if kind == "choice":
        return {"grammar": _choices(value)}
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"'structured_outputs.{kind}' must be a non-empty string")
    return {"grammar": _regex_grammar(value) if kind == "regex" else _grammar(value)}


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
        except (json.JSONDecodeError, RecursionError) as error:
            raise InvalidRequest(f"'{name}' is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidRequest(f"'{name}' must be an object")
    return value


def _schema(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (json.JSONDecodeError, RecursionError) as error:
            raise InvalidRequest(f"'structured_outputs.json' is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidRequest("'structured_outputs.json' must be an object")
    return value


def _bounded(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema, unless it is too large.

    A reference is followed once, so what is referred to can at worst be one long chain.
    """
    _check_length("json", len(json.dumps(schema)), MAX_CHARS)
    references = {
        reference
        for level in _levels(schema)
        for each in level
        if isinstance(each, dict) and isinstance(reference := each.get("$ref"), str)
    }
    levels = sum(1 for _ in _levels(schema))
    for reference in references:
        levels += 1 + sum(1 for _ in _levels(_target(schema, reference)))
        if levels > MAX_LEVELS:
            raise InvalidRequest(
                f"'structured_outputs.json' and what its '$ref's name are more than {MAX_LEVELS} "
                "levels deep when put together"
            )
    return schema


def _levels(value: Any) -> Iterator[list[Any]]:
    """The objects and arrays of JSON, level by level from the outermost."""
    level = [value] if isinstance(value, dict | list) else []
    while level:
        yield level
        inner = (each.values() if isinstance(each, dict) else each for each in level)
        level = [each for every in inner for each in every if isinstance(each, dict | list)]


def _target(schema: dict[str, Any], reference: str) -> Any:
    """What a JSON pointer names; all of the schema for a reference of another kind."""
    if not reference.startswith("#/"):
        return schema
    found: Any = schema
    for part in reference.removeprefix("#/").split("/"):
        key = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and key.isdecimal() and int(key) < len(found):
            found = found[int(key)]
        else:
            found = found.get(key) if isinstance(found, dict) else None
    return found


def _check_length(kind: str, length: int, most: int) -> None:
    if length > most:
        raise InvalidRequest(f"'structured_outputs.{kind}' is longer than {most} characters")


def _grammar(value: str) -> str:
    """A grammar in GBNF, or in LLGuidance's own syntax, in which each rule has a colon."""
    _check_length("grammar", len(value), MAX_GRAMMAR_CHARS)
    if not value.startswith(LARK):
        return to_lark(value)
    if "%json" in value:  # a schema of which nobody has counted the references
        raise InvalidRequest("'structured_outputs.grammar' may not hold '%json'")
    if value.count(":") > MAX_RULES:
        raise InvalidRequest(f"'structured_outputs.grammar' has more than {MAX_RULES} rules")
    return value


def _choices(value: Any) -> str:
    """As a grammar: llama.cpp's own reader of GBNF tries all of many choices at each token."""
    if not isinstance(value, list) or not value or not all(isinstance(c, str) and c for c in value):
        raise InvalidRequest("'structured_outputs.choice' must be a list of non-empty strings")
    text = "root ::= " + " | ".join(map(_quoted, value))
    _check_length("choice", len(text), MAX_GRAMMAR_CHARS)
    return to_lark(text)


def _quoted(text: str) -> str:
    """As GBNF writes it: unlike JSON it has no surrogates, and few letters for controls."""
    escaped = re.sub(r'["\\]', r"\\\g<0>", text)
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda found: f"\\x{ord(found[0]):02x}", escaped) + '"'


def _regex_grammar(pattern: str) -> str:
    """LLGuidance's own syntax; GBNF has no regular expressions."""
    _check_length("regex", len(pattern), MAX_CHARS)
    escaped = re.sub(
        r"\\.|[/\n]", lambda found: ESCAPES.get(found[0], found[0]), pattern, flags=re.DOTALL
    )
    return "%llguidance {}\nstart: /" + escaped + "/"
