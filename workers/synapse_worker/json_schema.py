"""What LLGuidance makes of a JSON schema: what it would take too long for, or does not know. Pure.

It follows references by calling itself, without a bound: a chain of thousands is the end of the
process, and of everybody's work in it. And it joins what schemas ask of one value, patterns and
multiples, into one automaton, at which all others wait. So they are counted here first.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

from synapse_worker.errors import InvalidRequest
from synapse_worker.regex_signs import check_signs

MAX_CHARS = 64 * 1024
MAX_LEVELS = 800
"""Of a schema and of what it refers to, all together; some 3,000 have ended an engine."""

MAX_JOINED_PATTERNS = 8
"""Of one value 6 take half a second; 30 were not done after 20."""

MAX_STEPS = 10_000
"""Of all `multipleOf`, the digits read as whole numbers: half a second; a million takes 14."""

FORMATS = frozenset(
    "date-time date time duration email hostname ipv4 ipv6 uuid unknown".split()  # noqa: SIM905
)
UNKNOWN_KEYWORDS = (
    "uniqueItems",
    "propertyNames",
    "not",
    "if",
    "contains",
    "dependentRequired",
    "dependentSchemas",
    "dependencies",
    "unevaluatedProperties",
    "unevaluatedItems",
    "$dynamicRef",
    "$recursiveRef",
)
UNKNOWN_IN_PATTERNS = re.compile(r"(?:[^\\]|^)(?:\\\\)*(?:\\[bB1-9]|\(\?<?[=!])")
ANNOTATIONS = frozenset({"title", "description", "$comment", "examples", "default", "deprecated"})
# Below these is data, or a name for each schema.
DATA = frozenset({"const", "enum", "default", "examples"})
NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
JOINING = frozenset({"allOf", "anyOf", "oneOf", "$ref"})
JOINED = frozenset(
    {"pattern", "multipleOf", "properties", "patternProperties", "additionalProperties", "items"}
)


def bounded(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema, less what asks nothing of an answer.

    Raises:
        InvalidRequest: it is more than an engine is given.
    """
    if len(json.dumps(schema)) > MAX_CHARS:
        raise _wrong(f"is longer than {MAX_CHARS} characters")
    _check_levels(schema)
    _check_automata(schema)
    return _less_what_asks_nothing(schema)


def unknown_to_engine(schema: dict[str, Any]) -> str | None:
    """The first thing in a schema that LLGuidance does not know, and where it is."""
    for place, each in _schemas(schema):
        for keyword in UNKNOWN_KEYWORDS:
            if keyword in each:
                return f"{keyword!r} at {place}"
        pattern = each.get("pattern")
        if isinstance(pattern, str) and has_unknown_signs(pattern):
            return rf"look-around, \b and \1 in the 'pattern' at {place}"
    return None


def has_unknown_signs(pattern: str) -> bool:
    """Whether a regular expression has look-around, limits of words or references back."""
    return UNKNOWN_IN_PATTERNS.search(pattern) is not None


def _check_levels(schema: dict[str, Any]) -> None:
    """A reference is followed once, so what is referred to can at worst be one long chain."""
    references = {
        reference for each in _objects(schema) if isinstance(reference := each.get("$ref"), str)
    }
    levels = sum(1 for _ in _levels(schema))
    for reference in references:
        levels += 1 + sum(1 for _ in _levels(_target(schema, reference)))
        if levels > MAX_LEVELS:
            raise _wrong(
                f"and what its '$ref's name are more than {MAX_LEVELS} levels deep when put "
                "together"
            )


def _check_automata(schema: dict[str, Any]) -> None:
    patterns: list[str] = []
    steps: set[int] = set()
    is_joined = False
    for each in _objects(schema):
        patterns += (text for text in (each.get("pattern"),) if isinstance(text, str))
        by_name = each.get("patternProperties")
        patterns += by_name if isinstance(by_name, dict) else ()
        steps |= _steps(each.get("multipleOf"))
        all_of = each.get("allOf")
        is_joined |= isinstance(all_of, list) and len(all_of) > 1
        is_joined |= not JOINING.isdisjoint(each) and not JOINED.isdisjoint(each)
    check_signs("json", "its patterns have", patterns)
    if is_joined and len(patterns) > MAX_JOINED_PATTERNS:
        raise _wrong(
            f"has more than {MAX_JOINED_PATTERNS} patterns, and joins schemas ('allOf', or others "
            "beside 'properties' or 'pattern'); write what is joined as one schema"
        )
    if _together(steps, is_joined) > MAX_STEPS:
        raise _wrong(
            f"has 'multipleOf's that make more than {MAX_STEPS} together (their digits as whole "
            "numbers); use smaller ones, or check the answer for them"
        )


def _together(steps: Iterable[int], is_joined: bool) -> int:
    """What they come to, as far as it is allowed: all of huge ones would take seconds."""
    together = 1 if is_joined else 0
    for each in steps:
        together = together * each if is_joined else together + each
        if together > MAX_STEPS:
            break
    return together


def _steps(value: object) -> set[int]:
    """How many remainders an automaton tells apart: 5 of 0.05, 100 of 100.0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return set()
    if isinstance(value, float) and not math.isfinite(value):
        return set()
    _, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(exponent, int), "it is finite"
    return {int("".join(map(str, digits))) * 10 ** max(0, exponent)}


def _less_what_asks_nothing(schema: dict[str, Any]) -> dict[str, Any]:
    """Without what LLGuidance refuses although no answer could be wrong for it.

    A `format` is an annotation (JSON Schema 2020-12, 7.2.1): those it knows are held to, others
    are not asked of an answer.
    """
    copy: dict[str, Any] = json.loads(json.dumps(schema))
    for _, each in _schemas(copy):
        if isinstance(name := each.get("format"), str) and name not in FORMATS:
            del each["format"]
        if each.get("uniqueItems") is False:
            del each["uniqueItems"]
        if "propertyNames" in each and _is_any_name(each["propertyNames"]):
            del each["propertyNames"]
    return copy


def _is_any_name(names: object) -> bool:
    if not isinstance(names, dict):
        return names is True
    return names.keys() - ANNOTATIONS <= {"type"} and names.get("type", "string") == "string"


def _schemas(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The schemas in a schema, each with its place, the outermost first."""
    level = [("the top", schema)]
    while level:
        yield from level
        level = [inner for place, each in level for inner in _inner(place, each)]


def _inner(place: str, schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    before = "" if place == "the top" else f"{place}."
    for keyword, value in schema.items():
        if keyword in DATA:
            continue
        if isinstance(value, dict) and keyword not in NAMED:
            yield f"{before}{keyword}", value
        elif isinstance(value, dict | list):
            parts = value.items() if isinstance(value, dict) else enumerate(value)
            yield from (
                (f"{before}{keyword}.{name}", part)
                for name, part in parts
                if isinstance(part, dict)
            )


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """The objects of JSON, of data too: a reference may name any of them."""
    return (each for level in _levels(value) for each in level if isinstance(each, dict))


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


def _wrong(problem: str) -> InvalidRequest:
    return InvalidRequest(f"'structured_outputs.json' {problem}")
