import json
from typing import Any

import pytest

from synapse_worker.errors import InvalidRequest
from synapse_worker.structured import SPACING, constraint

SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}}


@pytest.mark.parametrize(
    "parameters",
    [
        {"guided_json": SCHEMA},
        {"guided_json": '{"type": "object", "properties": {"age": {"type": "integer"}}}'},
        {"structured_outputs": {"json": SCHEMA}},
        {"structured_outputs": json.dumps({"json": SCHEMA})},
        {"guided_decoding": {"json": SCHEMA, "regex": None}},
    ],
)
def test_a_schema_is_found_under_each_of_its_names(parameters: dict[str, Any]) -> None:
    assert constraint(parameters) == {"json_schema": {**SCHEMA, **SPACING}}


def test_choices_become_a_grammar_that_quotes_them() -> None:
    found = constraint({"guided_choice": ["yes", 'say "no"']})

    assert found == {"grammar": 'root ::= "yes" | "say \\"no\\""'}


def test_a_pattern_keeps_its_escapes_and_gains_those_of_its_delimiter() -> None:
    found = constraint({"guided_regex": r"\d+/\d\/x"})

    assert found == {"grammar": "%llguidance {}\nstart: /" + r"\d+\/\d\/x" + "/"}


def test_a_grammar_is_passed_on_and_json_object_is_any_object() -> None:
    assert constraint({"guided_grammar": 'root ::= "a"'}) == {"grammar": 'root ::= "a"'}
    assert constraint({"structured_outputs": {"json_object": True}}) == {
        "json_schema": {"type": "object", **SPACING}
    }


def test_nothing_asked_is_nothing_constrained() -> None:
    assert constraint({}) == {}
    assert constraint({"guided_json": None, "structured_outputs": {"json_object": False}}) == {}


@pytest.mark.parametrize(
    "parameters",
    [
        {"guided_json": "not json"},
        {"guided_json": [1]},
        {"guided_choice": []},
        {"guided_choice": [1]},
        {"guided_regex": ""},
        {"guided_grammar": 5},
        {"structured_outputs": "x"},
        {"structured_outputs": "[]"},
        {"structured_outputs": {"structural_tag": "x"}},
        {"guided_regex": "a", "guided_choice": ["b"]},
    ],
)
def test_what_makes_no_sense_is_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        constraint(parameters)
