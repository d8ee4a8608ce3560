"""Origins of web pages: scheme, host and port, as browsers write them."""

from __future__ import annotations

import re

_ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?")


def is_origin(text: str) -> bool:
    """Whether it is one; `*` and `null` are none."""
    return _ORIGIN.fullmatch(text) is not None
