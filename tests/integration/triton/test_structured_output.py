"""Answers held to a form, by a real engine."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from synapse.adapters.triton.engine import TritonEngine
from synapse.domain.errors import InvalidInput
from synapse.domain.inference import ChatMessage, Completion
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.ports import InferenceRequest
from tests.e2e.worker import Worker
from tests.unit.triton.asking import ask, outcome

PET = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 10},
        "kind": {"enum": ["cat", "dog"]},
        "tags": {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3},
        "home": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 10}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "kind", "tags", "home"],
    "additionalProperties": False,
}


def held_to(form: dict[str, Any], **parameters: Any) -> InferenceRequest:
    talk = (ChatMessage("user", "Describe a pet as JSON."),)
    wanted = {"max_tokens": 120, "seed": 1, "structured_outputs": form, **parameters}
    return ask(None, messages=talk, parameters=wanted)


@pytest.mark.parametrize("temperature", [0, 1.0])
async def test_a_schema_is_kept_with_all_that_it_requires_and_no_endless_whitespace(
    engine: TritonEngine, llm: ModelSpec, pool: Pool, temperature: float
) -> None:
    found = await outcome(engine, llm, pool, held_to({"json": PET}, temperature=temperature))

    assert isinstance(found, Completion)
    assert found.finish_reason == "stop"
    pet = json.loads(found.text)
    assert pet.keys() == {"name", "kind", "tags", "home"}
    assert pet["kind"] in ("cat", "dog")
    assert 1 <= len(pet["tags"]) <= 3
    assert all(isinstance(tag, int) for tag in pet["tags"])
    assert isinstance(pet["home"]["city"], str)


async def test_any_object_is_an_object(engine: TritonEngine, llm: ModelSpec, pool: Pool) -> None:
    found = await outcome(engine, llm, pool, held_to({"json_object": True}, temperature=1.0))

    assert isinstance(found, Completion)
    assert isinstance(json.loads(found.text), dict)


async def test_a_pattern_is_kept(engine: TritonEngine, llm: ModelSpec, pool: Pool) -> None:
    pattern = "[0-9]{3}-[a-f]{2}"

    found = await outcome(engine, llm, pool, held_to({"regex": pattern}))

    assert isinstance(found, Completion)
    assert re.fullmatch(pattern, found.text)


GRAMMARS = {
    "of which only one reading goes on": 'root ::= [a-z]* "-" ("ab" | "abc") "cd" [x] "!" | "ab"',
    "with escapes and lines": """root ::= (
        "\\"" [^"\\\\\\n]{1,5} # no end of line
        | "\\\\"
    ) "\\""? end-1
end-1 ::= "\\u00e9\\x21\"""",
    # llama.cpp's own sampler would be at it for minutes, and everybody else with it.
    "of many optional letters": "root ::= " + '"a"? ' * 500 + '"b"',
}
PATTERNS = {
    "of which only one reading goes on": r"[a-z]*-(ab|abc)cdx!|ab",
    "with escapes and lines": r"(\"[^\"\\\n]{1,5}|\\)\"?é!",
    "of many optional letters": "a{0,500}b",
}


@pytest.mark.parametrize("name", GRAMMARS)
async def test_a_grammar_is_kept(
    engine: TritonEngine, llm: ModelSpec, pool: Pool, name: str
) -> None:
    found = await outcome(engine, llm, pool, held_to({"grammar": GRAMMARS[name]}, temperature=1.0))

    assert isinstance(found, Completion)
    assert found.finish_reason == "length" or re.fullmatch(PATTERNS[name], found.text)


REFERENCES = {f"a{i}": {"$ref": f"#/$defs/a{i + 1}"} for i in range(5000)}


@pytest.mark.parametrize(
    "form",
    [
        {"json": {"$defs": REFERENCES, "$ref": "#/$defs/a0"}},
        {"grammar": "root ::= " + "(" * 25_000 + '"a"' + ")" * 25_000},
        {
            "grammar": "%llguidance {}\nstart: a0\n"
            + "".join(f"a{i}: a{i + 1}\n" for i in range(9000))
        },
        {"json": {"type": "nonsense"}},
        {"json": {"enum": []}},
        {"json": {"type": "integer", "minimum": 5, "maximum": 3}},
        {"json": {"allOf": [{"type": "string"}, {"type": "integer"}]}},
        {"json": {"$ref": "#/nowhere"}},
        {"regex": "([a"},
        {"regex": "(?=a)b"},
    ],
    ids=lambda form: str(form)[:40],
)
async def test_a_form_that_is_malformed_or_impossible_is_refused_by_name(
    engine: TritonEngine, llm: ModelSpec, pool: Pool, form: dict[str, Any]
) -> None:
    found = await outcome(engine, llm, pool, held_to(form))

    assert isinstance(found, InvalidInput)
    assert found.param == "structured_outputs"


MARK = "marked-as-private"


@pytest.mark.parametrize(
    "form",
    [
        {"json": {"$ref": "#/nowhere", "description": MARK}},
        {"regex": f"{MARK}(["},
        {"grammar": f'root ::= "{MARK}" \\'},
        {"grammar": f'root ::= undefined "{MARK}"'},
        {"grammar": f'%llguidance {{}}\nstart: "{MARK}" \\'},
    ],
    ids=lambda form: str(form)[:40],
)
async def test_a_form_that_is_refused_is_in_no_log(
    engine: TritonEngine, llm: ModelSpec, pool: Pool, triton: Worker, form: dict[str, Any]
) -> None:
    assert isinstance(await outcome(engine, llm, pool, held_to(form)), InvalidInput)
    # The engine writes its log from a thread of its own: what comes later is behind it.
    assert isinstance(await outcome(engine, llm, pool, held_to({"regex": "a"})), Completion)

    assert triton.log_file.stat().st_size > 0
    assert MARK not in triton.log_file.read_text(errors="replace")
