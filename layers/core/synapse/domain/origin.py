"""Origins of web pages: scheme, host and port, as browsers write them."""

from __future__ import annotations

import re

ANY = "*"
"""Stands for all origins, where some are to be named."""

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?")


def is_origin(text: str) -> bool:
    """Whether it is one, of a site, an app or a browser's extension; `*` and `null` are none."""
    return _ORIGIN.fullmatch(text) is not None


def origins_of(text: str) -> tuple[str, ...]:
    """Those that are named, commas between them; or ANY.

    Raises:
        ValueError: something is neither.
    """
    found = tuple(each.strip() for each in text.split(",") if each.strip())
    for each in found:
        if each != ANY and not is_origin(each):
            raise ValueError(f"{each!r} must be like https://app.example.com, or {ANY} for any")
    return found
