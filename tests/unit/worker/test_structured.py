import json
from collections.abc import Callable
from typing import Any

import pytest

from synapse_worker.errors import InvalidRequest
from synapse_worker.gbnf import to_lark
from synapse_worker.json_schema import MAX_CHARS, MAX_JOINED_PATTERNS, MAX_LEVELS
from synapse_worker.regex_signs import MAX_SIGNS
from synapse_worker.structured import MAX_GRAMMAR_CHARS, SPACING, constraint, why_not

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

    assert found == {"grammar": to_lark('root ::= "yes" | "say \\"no\\""')}


def test_choices_are_written_as_a_grammar_has_them_and_json_has_not() -> None:
    found = constraint({"guided_choice": ["😀", "é", "a\b\f\nc", "\\n"]})

    assert found == {"grammar": to_lark(r'root ::= "😀" | "é" | "a\x08\x0c\x0ac" | "\\n"')}


def test_more_choices_than_a_grammar_may_hold_are_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"choice.*longer than"):
        constraint({"guided_choice": [f"choice number {number}" for number in range(2000)]})


def test_a_pattern_keeps_its_escapes_and_gains_those_of_its_delimiter() -> None:
    found = constraint({"guided_regex": r"\d+/\d\/x"})

    assert found == {"grammar": "%llguidance {}\nstart: /" + r"\d+\/\d\/x" + "/"}


def test_a_grammar_is_passed_on_and_json_object_is_any_object() -> None:
    lark = '%llguidance {}\nstart: "a"'
    assert constraint({"guided_grammar": lark}) == {"grammar": lark}
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


def test_a_grammar_in_gbnf_is_given_to_the_parser_that_cannot_blow_up() -> None:
    found = constraint({"guided_grammar": "root ::= " + '"a"? ' * 200})

    assert found["grammar"].startswith('%llguidance {}\nstart: r0\nr0: (("a"))? ')


def chain(length: int, hop: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """A schema of so many references, each behind the one before."""
    links = {f"a{i}": hop({"$ref": f"#/$defs/a{i + 1}"}) for i in range(length)}
    return {"$defs": {**links, f"a{length}": {"type": "integer"}}, "$ref": "#/$defs/a0"}


HOPS: list[Callable[[dict[str, Any]], dict[str, Any]]] = [
    lambda link: link,
    lambda link: {"anyOf": [{"type": "null"}, link]},
    lambda link: {"properties": {"a": link}},
    lambda link: {"items": {"items": {"items": link}}},
]


@pytest.mark.parametrize("hop", HOPS)
def test_a_chain_of_references_that_an_engine_cannot_follow_is_refused(
    hop: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    with pytest.raises(InvalidRequest, match=f"more than {MAX_LEVELS} levels"):
        constraint({"guided_json": chain(900, hop)})
    assert constraint({"guided_json": chain(100, hop)})


def test_references_in_a_circle_by_other_ways_or_to_nowhere_are_counted_once() -> None:
    tree = {"properties": {"next": {"$ref": "#"}, "other": {"$ref": "#/$defs/a~1b/0"}}}
    schema = {**tree, "$defs": {"a/b": [tree] * 50}, "anyOf": [{"$ref": "#name"}, {"$ref": "#/x"}]}

    assert constraint({"guided_json": schema}) == {"json_schema": {**schema, **SPACING}}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"guided_json": {"description": "x" * MAX_CHARS}}, "longer than"),
        ({"guided_json": "[" * 100_000}, "not JSON"),
        ({"structured_outputs": "[" * 100_000}, "not JSON"),
        ({"guided_regex": "x" * (MAX_CHARS + 1)}, "longer than"),
        ({"guided_grammar": "x" * (MAX_GRAMMAR_CHARS + 1)}, "longer than"),
        ({"guided_grammar": "%llguidance {}\nstart: %json {}"}, "may not hold '%json'"),
        (
            {"guided_grammar": "%llguidance {}\n" + "".join(f"a{i}:a\n" for i in range(2000))},
            "more than 1000 rules",
        ),
    ],
)
def test_what_is_too_large_for_an_engine_is_refused(
    parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        constraint(parameters)


def of_fields(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "object", "properties": {f"p{i}": each for i, each in enumerate(schemas)}}


def lark(body: str) -> str:
    return f"%llguidance {{}}\nstart: A\nA: {body}"


@pytest.mark.parametrize(
    "part", [".*", "a+", "b?", "[c]{1,2}", "(d|)", "(?:e|)", r"\pL", r"\P{Lu}"]
)
def test_more_repetitions_than_an_engine_is_given_are_refused_wherever_they_are(part: str) -> None:
    most, more = part * MAX_SIGNS, part * (MAX_SIGNS + 1)
    half = part * (MAX_SIGNS // 2)

    assert constraint({"guided_regex": most})
    assert constraint({"guided_json": of_fields([{"pattern": half}] * 2)})
    assert constraint({"guided_grammar": lark(f"/{half}/")})
    too_many: list[dict[str, Any]] = [
        {"guided_regex": more},
        {"guided_grammar": lark(f"/{more}/")},
        {"guided_json": of_fields([{"pattern": half}, {"pattern": half + part}])},
        {"guided_json": {"patternProperties": {more: {}}}},
        {"guided_json": {"$ref": "#/default/a", "default": {"a": {"pattern": more}}}},
    ]
    for refused in too_many:
        with pytest.raises(InvalidRequest, match="signs of repetition"):
            constraint(refused)


def test_what_is_escaped_is_no_repetition() -> None:
    assert constraint({"guided_regex": r"\*\+\?\{\(\w" * MAX_SIGNS})


def test_how_often_a_part_is_repeated_does_not_count() -> None:
    assert constraint({"guided_regex": "((a{1,2000}){1,2000}){1,2000}"})


def test_automata_that_multiply_are_refused() -> None:
    patterns = [{"pattern": f"a{i}"} for i in range(MAX_JOINED_PATTERNS + 1)]

    assert constraint({"guided_json": of_fields(patterns)})
    assert constraint({"guided_json": {"allOf": patterns[1:]}})
    for joined in (
        {"allOf": patterns},
        {
            "$defs": {str(i): each for i, each in enumerate(patterns)},
            "pattern": "a",
            "$ref": "#/$defs/0",
        },
        {"anyOf": [of_fields([each]) for each in patterns], "properties": {}},
    ):
        with pytest.raises(InvalidRequest, match="joins schemas"):
            constraint({"guided_json": joined})
    with pytest.raises(InvalidRequest, match="more than 16 '&'"):
        constraint({"guided_grammar": lark(" & ".join(["/a/"] * 18))})


@pytest.mark.parametrize(
    ("schema", "is_refused"),
    [
        (of_fields([{"multipleOf": step} for step in (5, 7, 900, 0.01, 0.25, 1e3)]), False),
        ({"multipleOf": 10_001}, True),
        ({"multipleOf": 0.010001}, True),
        ({"multipleOf": 1e300}, True),
        ({"multipleOf": 10**400}, True),
        ({"allOf": [{"multipleOf": float(f"1.{i:04d}e304")} for i in range(1, 1500)]}, True),
        (of_fields([{"multipleOf": step} for step in (9000, 9001)]), True),
        ({"allOf": [{"multipleOf": 99}, {"multipleOf": 101}]}, False),
        ({"allOf": [{"multipleOf": 991}, {"multipleOf": 997}]}, True),
        ({"multipleOf": "5"}, False),
        ({"multipleOf": True}, False),
    ],
)
def test_multiples_that_take_an_engine_too_many_remainders_are_refused(
    schema: dict[str, Any], is_refused: bool
) -> None:
    if is_refused:
        with pytest.raises(InvalidRequest, match="'multipleOf'"):
            constraint({"guided_json": schema})
    else:
        assert constraint({"guided_json": schema})


def test_what_asks_nothing_of_an_answer_is_left_out() -> None:
    asked = {"type": "string", "format": "date-time"}
    data = {"format": "uri", "uniqueItems": False}
    kept: dict[str, Any] = {
        "properties": {"format": {"type": "string"}, "a": asked, "b": {"const": data}},
        "propertyNames": {"pattern": "^[a-z]"},
        "default": data,
    }
    noise: dict[str, Any] = {
        "format": "uri",
        "uniqueItems": False,
        "propertyNames": {"type": "string"},
    }
    fields = {**kept["properties"], "c": {"type": "string", **noise, "items": [noise, {}]}}

    found = constraint({"guided_json": {**kept, "properties": fields}})["json_schema"]

    cleaned = {**kept["properties"], "c": {"type": "string", "items": [{}, {}]}}
    assert found == {**kept, "properties": cleaned, **SPACING}
    assert fields["c"]["format"] == "uri", "the caller's own is left as it is"


@pytest.mark.parametrize(
    ("parameters", "unknown"),
    [
        ({"guided_json": of_fields([{"uniqueItems": True}])}, "'uniqueItems' at properties.p0"),
        ({"guided_json": {"not": {}}}, "'not' at the top"),
        ({"guided_json": {"anyOf": [{}, {"propertyNames": {"enum": []}}]}}, "at anyOf.1;"),
        ({"guided_json": {"items": {"pattern": r"^\bx"}}}, "in the 'pattern' at items"),
        ({"guided_json": {"pattern": r"(?!a)b"}}, "in the 'pattern' at the top"),
        ({"guided_regex": r"a(?<=a)"}, "look-around"),
    ],
)
def test_what_an_engine_does_not_know_is_named_with_its_place(
    parameters: dict[str, Any], unknown: str
) -> None:
    assert unknown in why_not(constraint(parameters))


@pytest.mark.parametrize(
    "parameters",
    [
        {"guided_json": of_fields([{"type": "nonsense", "default": {"not": {}}}])},
        {"guided_json": {"properties": {"not": {"type": "nonsense"}}}},
        {"guided_regex": r"(?<name>[a\\b"},
    ],
)
def test_nothing_is_named_that_an_engine_knows(parameters: dict[str, Any]) -> None:
    assert why_not(constraint(parameters)).endswith("this schema, pattern or grammar")


def test_numbers_beyond_measure_are_refused_as_what_cannot_be_read() -> None:
    digits = "9" * 5000
    for asked in ({"guided_json": digits}, {"structured_outputs": f'{{"json": {digits}}}'}):
        with pytest.raises(InvalidRequest, match="is not JSON"):
            constraint(asked)
