"""What a client says of a request in its headers: how long it waits, and which attempt it is."""

from __future__ import annotations

import math
import re
from typing import Annotated

from aws_lambda_powertools.event_handler.openapi.params import Header
from pydantic import BaseModel

from synapse.api.retries import Attempt
from synapse.domain.access import Principal

LEAST_S = 1.0
"""The patience of those whose SDK tells whole seconds, where that is none."""

COUNT = re.compile(r"[0-9]{1,9}")
"""How many attempts a client may say it has made; what is more, or no number, tells nothing."""

PythonDeadline = Annotated[
    str | None, Header(alias="x-stainless-read-timeout", include_in_schema=False)
]
NodeDeadline = Annotated[str | None, Header(alias="x-stainless-timeout", include_in_schema=False)]
RetryCount = Annotated[str | None, Header(alias="x-stainless-retry-count", include_in_schema=False)]
RequestKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="A second request with this key gets the first one's answer, for ten minutes.",
    ),
]


def patience_s(at_most_s: float, python: str | None, node: str | None) -> float:
    """How long the caller waits: what its SDK says in a header, and what the front door holds.

    OpenAI's clients say it in seconds: that for Python a fraction too, of the time between two
    reads; the others as a whole number, without what is beyond it, of the time until the answer
    begins.
    """
    told_s = _seconds(python)
    if told_s is None:
        told_s = _seconds(node)
        if told_s == 0:
            told_s = LEAST_S
    return min(told_s, at_most_s) if told_s else at_most_s


def attempt_of(
    caller: Principal, route: str, body: BaseModel, key: str | None, retries: str | None
) -> Attempt:
    """The request as it may come again."""
    count = int(retries) if retries is not None and COUNT.fullmatch(retries) else None
    attempt = Attempt(caller, route, "", key, count)
    if not attempt.is_tracked:
        return attempt
    return Attempt(caller, route, body.model_dump_json(exclude_unset=True), key, count)


def _seconds(header: str | None) -> float | None:
    try:
        told_s = float(header or "nan")
    except ValueError:
        return None
    return told_s if 0 <= told_s < math.inf else None
