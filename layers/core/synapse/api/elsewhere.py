"""What to tell who asks for a path that is not there. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable

BASE = re.compile("(?:/v1)*(?=/)")
SLASHES = re.compile("/{2,}")
NOT_SERVED = re.compile(
    "/v1/(assistants|audio|chatkit|containers|conversations|evals|fine_tuning|images|moderations|"
    "realtime|rerank|threads|vector_stores|videos)(?:/|$)"
)
"""What else clients ask for under OpenAI's base URL."""


def hint(path: str, is_route: Callable[[str], bool]) -> str:
    """What is wrong with `path`; `is_route` says whether there is a route, by any method."""
    meant = BASE.sub("/v1", SLASHES.sub("/", path), count=1)
    if meant != path and is_route(meant):
        return "no such route; the base URL of OpenAI's clients ends in /v1, once and with no slash"
    if found := NOT_SERVED.match(meant):
        return f"no such route: {found[1]} is not served here; /api/docs lists what is"
    return "no such route; /api/docs lists them"
