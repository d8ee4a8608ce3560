"""What the terminals of a grammar in LLGuidance's Lark come to when put together. Pure.

A terminal is one regular expression, with those that it names written out in it: a dozen lines,
each of which names the next one twice, are 4,096 times the last.
"""

import re
from collections import Counter, defaultdict
from graphlib import CycleError, TopologicalSorter

from synapse_worker.errors import InvalidRequest
from synapse_worker.regex_signs import MAX_SIGNS, signs_in

MAX_TERMINAL_CHARS = 64 * 1024
"""Of all terminals, written out: a second."""

# As LLGuidance reads it; what is no part of a terminal is left out. What repeats gives nothing
# back, and what does not end is taken as a whole: else some texts would be read again and again.
TOKEN = re.compile(
    r"""(?P<comment>(?:\#|//)[^\n]*)
    |(?P<text>"(?:\\.|[^"\\\n])*+"?|<[^<>\s]++>)
    |(?P<regex>/(?:\\.|[^/\\])++/?)
    |(?P<terminal>_?[A-Z][_A-Z0-9-]*)
    |(?P<rule>[!?_]*+[a-z][_a-z0-9-]*)
    |(?P<nothing>[!?_]++)
    |(?P<colon>:)
    |(?P<close>\])
    |(?P<sign>[*+?~{\[(])""",
    re.VERBOSE | re.DOTALL,
)
# A rule may have attributes, in brackets; a colon behind a text is of JSON.
HEADS = frozenset({"terminal", "rule", "close"})
RULES = ""
"""All that is in no terminal: it is not written out anywhere."""


def check_terminals(grammar: str) -> None:
    """Refuse a grammar whose terminals come to more than an engine is given.

    Raises:
        InvalidRequest: they do, written out, or one is part of itself.
    """
    signs, chars, named = _terminals(grammar)
    try:
        # Those that are named come before those that name them.
        for terminal in TopologicalSorter(named).static_order():
            for inner, times in named[terminal].items():
                signs[terminal] += times * signs[inner]
                chars[terminal] += times * chars[inner]
    except CycleError:
        raise _wrong("has a terminal that is part of itself") from None
    if signs.total() > MAX_SIGNS or chars.total() > MAX_TERMINAL_CHARS:
        raise _wrong(
            "has terminals that name each other too often: written out they may have "
            f"{MAX_SIGNS} signs of repetition and brackets, and {MAX_TERMINAL_CHARS} characters; "
            "write rules, with small letters, for what is made of others"
        )


def _terminals(
    grammar: str,
) -> tuple[Counter[str], Counter[str], defaultdict[str, Counter[str]]]:
    """The signs and characters of each terminal alone, and how often it names which others."""
    signs: Counter[str] = Counter()
    chars: Counter[str] = Counter()
    named: defaultdict[str, Counter[str]] = defaultdict(Counter)
    current = RULES
    tokens = [found for found in TOKEN.finditer(grammar) if found.lastgroup != "comment"]
    for found, after in zip(tokens, [*tokens[1:], None], strict=True):
        kind = found.lastgroup
        if after is not None and after.lastgroup == "colon" and kind in HEADS:
            current = found[0] if kind == "terminal" else RULES
            continue
        if kind == "sign":
            signs[current] += 1
        elif kind == "regex":
            signs[current] += signs_in(found[0])
        elif kind == "terminal" and current != RULES:
            named[current][found[0]] += 1
        if kind in ("text", "regex", "terminal"):
            chars[current] += len(found[0])
    return signs, chars, named


def _wrong(problem: str) -> InvalidRequest:
    return InvalidRequest(f"'structured_outputs': the grammar {problem}")
