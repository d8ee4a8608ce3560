"""Turns vLLM's structured output parameters into llama.cpp's grammar fields. Pure.

LLGuidance follows rules by calling itself, without a bound: a chain of thousands is the end of
the process, and of everybody's work in it. So they are counted here first.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from synapse_worker.errors import InvalidRequest
from synapse_worker.gbnf import MAX_RULES, to_lark
from synapse_worker.json_schema import MAX_CHARS, bounded, has_unknown_signs, unknown_to_engine
from synapse_worker.lark import check_terminals
from synapse_worker.regex_signs import check_signs

# The nested form (`structured_outputs`, once `guided_decoding`) and the flat one mean the same.
KINDS = ("json", "json_object", "regex", "choice", "grammar")
ESCAPES = {"/": r"\/", "\n": r"\n"}
NESTED = ("structured_outputs", "guided_decoding")
LARK = "%llguidance"
MAX_GRAMMAR_CHARS = 32 * 1024
"""Many alternatives take LLGuidance their number squared: at this size a second or two."""

MAX_INTERSECTIONS = 16
"""`&` in Lark: a second; 100 were not done after two minutes."""

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
        return {"json_schema": {**bounded(_object("structured_outputs.json", value)), **SPACING}}
    if kind == "choice":
        return {"grammar": _choices(value)}
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"'structured_outputs.{kind}' must be a non-empty string")
    return {"grammar": _regex_grammar(value) if kind == "regex" else _grammar(value)}


def why_not(fields: Mapping[str, Any]) -> str:
    """What to say of fields that `constraint` made and the engine cannot apply."""
    unknown = None
    if "json_schema" in fields:
        unknown = unknown_to_engine(fields["json_schema"])
    elif has_unknown_signs(fields.get("grammar", "")):
        unknown = r"look-around, \b and \1 in a regular expression"
    whole = "'structured_outputs': the engine cannot apply this schema, pattern or grammar"
    return whole if unknown is None else f"{whole}: it does not know {unknown}; leave it out"


def _wanted(parameters: Mapping[str, Any]) -> dict[str, Any]:
    wanted: dict[str, Any] = {}
    for name, value in parameters.items():
        if value is None:
            continue
        if name not in NESTED:
            wanted[name.removeprefix("guided_")] = value
            continue
        value = _object(name, value)
        for kind, inner in value.items():
            if kind not in KINDS:
                raise InvalidRequest(f"'{name}.{kind}' is not supported by this engine")
            wanted |= {kind: inner} if inner not in (None, False) else {}
    return wanted


def _object(name: str, value: Any) -> dict[str, Any]:
    """An object, or its JSON text, which is how Triton's vLLM backend takes it."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:  # also of numbers beyond measure
            raise InvalidRequest(f"'{name}' is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidRequest(f"'{name}' must be an object")
    return value


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
    if value.count("&") > MAX_INTERSECTIONS:
        raise InvalidRequest(f"'structured_outputs.grammar' has more than {MAX_INTERSECTIONS} '&'")
    check_signs("grammar", "it has", [value])
    check_terminals(value)
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
    check_signs("regex", "it has", [pattern])
    escaped = re.sub(
        r"\\.|[/\n]", lambda found: ESCAPES.get(found[0], found[0]), pattern, flags=re.DOTALL
    )
    return "%llguidance {}\nstart: /" + escaped + "/"
