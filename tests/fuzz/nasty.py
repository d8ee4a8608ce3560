"""Values that programs stumble over, and JSON that holds them."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

RAW = {
    "@@digits@@": "9" * 5_000,
    "@@exponent@@": "1e999",
    "@@tiny@@": "-1E-400",
    "@@deep@@": "[" * 3_000 + "]" * 3_000,
    "@@objects@@": '{"a":' * 70 + "1" + "}" * 70,
    "@@wide@@": "[" + "[]," * 120_000 + "1]",
    "@@twice@@": '{"a": 1, "a": [2]}',
    "@@surrogate@@": r'"\ud800"',
    "@@escape@@": r'"\x"',
    "@@open@@": '"',
    "@@comment@@": "1 /* one */",
    "@@trailing@@": "[1,]",
}
"""What `json.dumps` does not write, by what stands for it."""

ODD_TEXTS = (
    *("", " ", "\0", "a\0b", "\ud800", "\udfff\ud800", "\ufeff", "\uffff", "\u202egnp.exe"),
    *("👩‍👩‍👧‍👦", "ﷺ" * 50, "Z͑ͫ" * 100, "İ", "ß", "null", "None", "undefined", "NaN", "-1", "1e5"),
    *(
        "../../../../etc/passwd",
        "..",
        ".",
        "/",
        "%00",
        "%2e%2e%2f",
        "C:\\CON",
        "file:///etc/passwd",
    ),
    *("' OR 1=1 --", '"; DROP TABLE jobs; --', "{{7*7}}", "${jndi:ldap://x.invalid}", "$(id)"),
    *("<script>alert(1)</script>", "\r\nSet-Cookie: a=b", "a\nb", "\x1b[31m", "%s%n", "=1+1"),
    *("a" * 300, "a" * 70_000, "é" * 5_000, "0" * 4_301, "__proto__", "__class__", "constructor"),
)
ODD_NUMBERS = (
    *(0, -1, 1, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**40),
    *(0.1, -0.0, 1e308, -1e308, 5e-324, float("nan"), float("inf"), float("-inf"), 10**12 + 1),
)

texts = st.sampled_from(ODD_TEXTS) | st.text(st.characters(codec=None), max_size=40)
numbers: SearchStrategy[Any] = st.sampled_from(ODD_NUMBERS) | st.integers() | st.floats()
leaves: SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), numbers, texts, st.sampled_from(sorted(RAW))
)
values: SearchStrategy[Any] = st.deferred(
    lambda: st.one_of(
        *[leaves] * 3,
        st.lists(values, max_size=3),
        st.dictionaries(texts, values, max_size=3),
    )
)


def as_json(value: Any) -> bytes:
    """JSON text of it, with what Python would not write in it."""
    text = json.dumps(value)
    for mark, raw in RAW.items():
        text = text.replace(json.dumps(mark), raw)
    return text.encode()


@st.composite
def mutated(draw: DrawFn, strategy: SearchStrategy[Any], most: int = 3) -> Any:
    """Something of `strategy`, with up to `most` changes somewhere inside."""
    value = draw(strategy)
    for _ in range(min(most, draw(st.sampled_from([0, 0, 0, 1, 1, 2, 3])))):
        value = _changed(draw, deepcopy(value))
    return value


def _changed(draw: DrawFn, value: Any) -> Any:
    """One change at one place, mostly deep inside."""
    if isinstance(value, dict) and value and draw(st.integers(0, 9)):
        name = draw(st.sampled_from(sorted(value)))
        what = draw(st.integers(0, 9))
        if what == 0:
            del value[name]
        elif what == 1:
            value[draw(texts)] = draw(leaves)
        else:
            value[name] = _changed(draw, value[name])
        return value
    if isinstance(value, list) and value and draw(st.integers(0, 4)):
        index = draw(st.integers(0, len(value) - 1))
        if draw(st.integers(0, 5)) == 0:
            return value + value[index : index + 1] * draw(st.sampled_from([1, 20, 2_100]))
        value[index] = _changed(draw, value[index])
        return value
    return draw(values)
