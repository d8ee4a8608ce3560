"""What is wrong with an answer, whatever it answers. Needs nothing but the standard library.

Schemathesis, which lives in an environment of its own, judges by the same rules.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

ERROR_KEYS = {"message", "type", "param", "code"}
ALLOWED_5XX = (503, 504)
INTERNALS = ("Traceback (most recent call last)", "site-packages", "errors.pydantic.dev")
"""What tells of our insides."""


def faults_of(
    status: int, headers: Mapping[str, str], body: bytes, foreign: Sequence[str] = ()
) -> list[str]:
    """The rules that an answer breaks, as texts that are alike for alike faults.

    `headers` have their names in lower case; `foreign` are texts the caller must never see.
    """
    text = body.decode("utf-8", errors="replace")
    faults = list(_faults_of_error(status, headers, text) if status >= 400 else ())
    if status < 400 and body and "content-type" not in headers:
        faults.append(f"{status} without a content type")
    if status < 400 and headers.get("content-type", "").startswith("application/json"):
        faults += _faults_of_json(status, body)
    if "x-request-id" not in headers:
        faults.append(f"{status} without an x-request-id")
    told = "\n".join([text, *headers.values()])
    faults += [f"{status} tells of our insides: {mark}" for mark in INTERNALS if mark in told]
    if any(each in told for each in foreign):
        faults.append(f"{status} tells what is another tenant's")
    return faults


def _faults_of_error(status: int, headers: Mapping[str, str], text: str) -> Iterator[str]:
    if status >= 500 and status not in ALLOWED_5XX:
        yield f"status {status}"
    if headers.get("content-type") != "application/json":
        yield f"{status} as {headers.get('content-type')!r}"
    if not _has_openais_shape(text):
        yield f"{status} not in OpenAI's shape"
    if status == 503 and "retry-after" not in headers:
        yield "503 without Retry-After"
    if status == 429 and "retry-after" not in headers and "x-should-retry" not in headers:
        yield "429 that says nothing of trying again"


def _has_openais_shape(text: str) -> bool:
    try:
        told = json.loads(text)
    except ValueError:
        return False
    error = told.get("error") if isinstance(told, dict) else None
    return (
        isinstance(error, dict)
        and set(told) == {"error"}
        and set(error) == ERROR_KEYS
        and all(isinstance(error[key], str) and error[key] for key in ("message", "type", "code"))
        and (error["param"] is None or isinstance(error["param"], str))
    )


def _faults_of_json(status: int, body: bytes) -> list[str]:
    try:
        json.loads(body.decode(), parse_constant=_no_constant)
    except ValueError:
        return [f"{status} whose JSON others cannot read"]
    return []


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
