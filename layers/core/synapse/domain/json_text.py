"""What JSON can say and UTF-8 cannot: halves of surrogate pairs, which Python reads as text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_ESCAPED = re.compile(r"\\u[dD][89a-fA-F]")


def lone_surrogate_at(text: str, value: Any) -> str | None:
    """Where in the `value` of a JSON text the first half of a pair is, as `a.0.b`; None for none.

    "" says that it is the value itself, or a name in it.
    """
    if not _ESCAPED.search(text):
        return None  # nothing else brings them in
    return next(_places(value), None)


def _places(value: Any) -> Iterator[str]:
    if isinstance(value, str) and not _is_whole(value):
        yield ""
    elif isinstance(value, dict):
        if not all(map(_is_whole, value)):
            yield ""
        for name, inner in value.items():
            yield from (f"{name}.{place}".rstrip(".") for place in _places(inner))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from (f"{index}.{place}".rstrip(".") for place in _places(inner))


def _is_whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
