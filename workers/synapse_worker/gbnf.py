"""Turns llama.cpp's GBNF into the Lark of LLGuidance, which llama.cpp runs as well. Pure.

llama.cpp's own sampler follows every way in which a grammar can be read, between the steps of all
other completions: a few dozen optional letters in a row take it minutes. LLGuidance reads with a
parser that cannot blow up like that. Its words are the longest that fit, GBNF's are not, so every
character becomes a word of its own.
"""

import re
from collections.abc import Iterator

from synapse_worker.errors import InvalidRequest
from synapse_worker.regex_signs import MAX_SIGNS

ROOT = "root"
MAX_DEPTH = 64
MAX_RULES = 1000
MAX_REPETITIONS = 2000
TOKEN = re.compile(
    r"""(?P<space>[ \t\r]+|\#[^\r\n]*)
    |(?P<line>\n)
    |(?P<rule>[A-Za-z0-9_-]+)[ \t]*::=
    |(?P<name>[A-Za-z0-9_-]+)
    |"(?P<text>(?:\\.|[^"\\])*)"
    |\[(?P<set>(?:\\.|[^\]\\])*)\]
    |(?P<many>[*+?])
    |\{[ ]*(?P<least>[0-9]{1,9})[ ]*(?P<to>,[ ]*(?P<most>[0-9]{1,9})?)?[ ]*\}
    |(?P<sign>[().|])""",
    re.VERBOSE | re.DOTALL,
)
KINDS = ("space", "line", "rule", "name", "text", "set", "many", "least", "sign")
CHARACTER = re.compile(
    r"\\x([0-9a-fA-F]{2})|\\u([0-9a-fA-F]{4})|\\U([0-9a-fA-F]{8})|\\([trn\\\"\[\]])|([^\\])",
    re.DOTALL,
)
ESCAPED = {"t": "\t", "r": "\r", "n": "\n"}
PLAIN = re.compile(r"[A-Za-z0-9 _:;,.<>=!?'@&|~(){}-]")
ANY = "/(?s:.)/"


def to_lark(grammar: str) -> str:
    """The same grammar in LLGuidance's syntax.

    Raises:
        InvalidRequest: it cannot be read, or is larger than this allows.
    """
    reader = _Reader(grammar)
    rules = reader.read()
    if ROOT not in rules:
        raise _wrong(f"has no rule {ROOT!r}")
    if len(rules) > MAX_RULES:
        raise _wrong(f"has more than {MAX_RULES} rules")
    undefined = reader.used - rules.keys()
    if undefined:
        raise _wrong(f"has no rule {min(undefined)!r}")
    lines = [f"{reader.name_of(name)}: {body}" for name, body in rules.items()]
    return "\n".join(["%llguidance {}", f"start: {reader.name_of(ROOT)}", *lines])


class _Reader:
    """One pass over the text; groups are held open in a list, so that none is a call of its own."""

    def __init__(self, grammar: str) -> None:
        self._grammar = grammar
        self._names = {ROOT: "r0"}
        self._repeated = False
        self._signs = 0
        self.used: set[str] = set()

    def name_of(self, rule: str) -> str:
        """A rule's name in Lark, where some names and signs have a meaning of their own."""
        return self._names.setdefault(rule, f"r{len(self._names)}")

    def read(self) -> dict[str, str]:
        """The bodies of all rules; of two with one name the last counts."""
        rules: dict[str, str] = {}
        rule = ""
        # Of each open group, the innermost last: its alternatives, of each its elements.
        open_groups: list[list[list[str]]] = []
        for kind, found in self._tokens():
            if kind == "line":
                # A body ends with its line, unless it has not begun or an alternative is to come.
                if rule and len(open_groups) == 1 and open_groups[0][-1]:
                    rules[rule], rule = _alternatives(open_groups.pop()), ""
            elif kind == "rule":
                if rule and len(open_groups) == 1:
                    rules[rule] = _alternatives(open_groups.pop())
                if open_groups:
                    raise _wrong(f"has an open bracket before rule {found['rule']!r}")
                rule = found["rule"]
                open_groups = [[[]]]
            elif not rule:
                raise _wrong(f"has {found[0][:20]!r} outside a rule")
            else:
                self._element(open_groups, kind, found)
        if len(open_groups) > 1:
            raise _wrong("has an open bracket at its end")
        if rule:
            rules[rule] = _alternatives(open_groups.pop())
        return rules

    def _element(self, groups: list[list[list[str]]], kind: str, found: re.Match[str]) -> None:
        elements = groups[-1][-1]
        # Each is a bracket more in Lark; on an element that has one it needs brackets of its own.
        was_repeated, self._repeated = self._repeated, kind in ("many", "least")
        match kind, found[0]:
            case "sign", "(":
                if len(groups) > MAX_DEPTH:
                    raise _wrong(f"has more than {MAX_DEPTH} brackets in one another")
                groups.append([[]])
            case "sign", ")":
                if len(groups) == 1:
                    raise _wrong("closes a bracket that is not open")
                groups[-2][-1].append(f"({_alternatives(groups.pop())})")
            case "sign", "|":
                groups[-1].append([])
            case "sign", _:
                elements.append(ANY)
            case "name", name:
                self.used.add(name)
                elements.append(self.name_of(name))
            case "text", _:
                letters = " ".join(_letter(each) for each in _characters(found["text"]))
                # One element, which a `*` behind it repeats as a whole.
                elements.append(f"({letters})" if letters else '("")')
            case "set", _:
                elements.append(_set(found["set"]))
            case _:
                if not elements or was_repeated:
                    raise _wrong(f"has nothing for {found[0]!r} to repeat")
                self._signs += 1
                if self._signs > MAX_SIGNS:
                    raise _wrong(f"has more than {MAX_SIGNS} repetitions")
                repetition = _repetition(found)
                # Lark knows no `{0,0}`.
                elements[-1] = f"({elements[-1]}){repetition}" if repetition else '("")'

    def _tokens(self) -> Iterator[tuple[str, re.Match[str]]]:
        at = 0
        while at < len(self._grammar):
            found = TOKEN.match(self._grammar, at)
            if found is None:
                line = self._grammar.count("\n", 0, at) + 1
                raise _wrong(f"cannot be read from {self._grammar[at : at + 20]!r} in line {line}")
            at = found.end()
            kind = next(kind for kind in KINDS if found[kind] is not None)
            if kind != "space":
                yield kind, found


def _alternatives(group: list[list[str]]) -> str:
    return " | ".join(" ".join(elements) or '""' for elements in group)


def _characters(text: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        found = CHARACTER.match(text, at)
        if found is None:
            raise _wrong(f"has an unknown escape {text[at : at + 2]!r}")
        at = found.end()
        code = found[1] or found[2] or found[3]
        if code is None:
            yield ESCAPED.get(found[4], found[4]) if found[4] else found[5]
        elif int(code, 16) > 0x10FFFF or 0xD800 <= int(code, 16) < 0xE000:
            raise _wrong(f"has no character {found[0]!r}")
        else:
            yield chr(int(code, 16))


def _letter(character: str) -> str:
    return f'"{character}"' if PLAIN.fullmatch(character) else f"/{_code(character)}/"


def _code(character: str) -> str:
    return f"\\x{{{ord(character):x}}}"


def _set(text: str) -> str:
    """A set of characters; one that starts with `^` is of all others."""
    is_negated = text.startswith("^")
    # An escaped `-` does not exist: it is a range between two characters, and itself elsewhere.
    letters = list(_characters(text.removeprefix("^")))
    parts = []
    at = 0
    while at < len(letters):
        first = last = letters[at]
        if letters[at + 1 : at + 2] == ["-"] and at + 2 < len(letters):
            last = letters[at + 2]
            at += 2
        at += 1
        if last < first:
            raise _wrong(f"has a range from {first!r} back to {last!r}")
        parts.append(f"{_code(first)}-{_code(last)}")
    if not parts:
        if is_negated:
            return ANY
        raise _wrong("has an empty set of characters")
    return f"/[{'^' if is_negated else ''}{''.join(parts)}]/"


def _repetition(found: re.Match[str]) -> str:
    if found["many"]:
        return found["many"]
    least, most = int(found["least"]), found["most"]
    most_of_all = int(most) if most else least
    if most_of_all < least or max(least, most_of_all) > MAX_REPETITIONS:
        raise _wrong(f"has {found[0]!r}, which is not 0 to {MAX_REPETITIONS} in order")
    if found["to"] is None or most:
        return f"{{{least},{most_of_all}}}" if most_of_all else ""
    return f"{{{least},}}"


def _wrong(problem: str) -> InvalidRequest:
    return InvalidRequest(f"'structured_outputs': the grammar {problem}")
