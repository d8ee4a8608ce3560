"""GBNF, said in LLGuidance's Lark; that both mean the same a real engine shows elsewhere."""

import pytest

from synapse_worker.errors import InvalidRequest
from synapse_worker.gbnf import MAX_DEPTH, MAX_REPETITIONS, MAX_RULES, to_lark


def body(grammar: str) -> str:
    """Of its only rule."""
    head, start, rule = to_lark(grammar).split("\n")
    assert (head, start) == ("%llguidance {}", "start: r0")
    return rule.removeprefix("r0: ")


@pytest.mark.parametrize(
    ("gbnf", "lark"),
    [
        ('"ab"', '("a" "b")'),
        ('""', '("")'),
        ("", '""'),
        (r'"\"\n\x41\u00e9/"', r'(/\x{22}/ /\x{a}/ "A" /\x{e9}/ /\x{2f}/)'),
        ("[a-c_-]", r"/[\x{61}-\x{63}\x{5f}-\x{5f}\x{2d}-\x{2d}]/"),
        (r"[^\]\\]", r"/[^\x{5d}-\x{5d}\x{5c}-\x{5c}]/"),
        ('. | "a"', '/(?s:.)/ | ("a")'),
        ('"ab"* [c]? .+', r'(("a" "b"))* (/[\x{63}-\x{63}]/)? (/(?s:.)/)+'),
        (".{2} .{2,} .{0,3}", "(/(?s:.)/){2,2} (/(?s:.)/){2,} (/(?s:.)/){0,3}"),
        ('.{0} "a"{0,0}', '("") ("")'),
        ('( "a"  # one\n  | "b" )', '(("a") | ("b"))'),
        ('| "a"', '"" | ("a")'),
        ('"a" |\n"b"', '("a") | ("b")'),
        ('\n  "a"\n', '("a")'),
        ('"a" root', '("a") r0'),
    ],
)
def test_each_character_is_a_word_of_its_own(gbnf: str, lark: str) -> None:
    assert body(f"root ::= {gbnf}") == lark


def test_rules_get_names_that_lark_allows() -> None:
    found = to_lark("# of lists\nroot ::= start-1+\nstart-1 ::= Item\n\nItem ::= .\n")

    assert found.split("\n")[1:] == ["start: r0", "r0: (r1)+", "r1: r2", "r2: /(?s:.)/"]


@pytest.mark.parametrize(
    ("gbnf", "message"),
    [
        ('start ::= "a"', "no rule 'root'"),
        ("root ::= other", "no rule 'other'"),
        ('root ::= "a', "cannot be read"),
        ('root ::= "a" \\', "cannot be read .* in line 1"),
        ('"a"', "outside a rule"),
        ('root ::= ("a"', "open bracket"),
        ('root ::= ("a"\nb ::= "c")', "open bracket before rule 'b'"),
        ('root ::= "a")', "not open"),
        ("root ::= *", "nothing for"),
        ("root ::= .*?", "nothing for"),
        (r'root ::= "\q"', "unknown escape"),
        (r'root ::= "\ud800"', "no character"),
        ("root ::= []", "empty set"),
        ("root ::= " + ".* [a]{1,2}" * 251, "more than 500 repetitions"),
        ("root ::= [z-a]", "range"),
        ("root ::= .{3,2}", "0 to"),
        (f"root ::= .{{{MAX_REPETITIONS + 1}}}", "0 to"),
        ("root ::= " + "(" * 25_000 + '"a"' + ")" * 25_000, f"more than {MAX_DEPTH} brackets"),
        ("root ::= .\n" + "".join(f"a{i} ::= .\n" for i in range(MAX_RULES)), "rules"),
    ],
)
def test_what_cannot_be_read_or_is_too_deep_is_refused_in_words(gbnf: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=f"'structured_outputs': the grammar .*{message}"):
        to_lark(gbnf)
