"""One error shape everywhere, and the one table from error classes to HTTP statuses.

The shape is OpenAI's: `{"error": {"message", "type", "param", "code"}}`, all four always there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from synapse.domain.errors import (
    BodyStalled,
    EngineLost,
    EngineTimeout,
    EngineUnavailable,
    FileBatchNotCancellable,
    FileBatchNotFound,
    FileUnknown,
    Forbidden,
    IdempotencyConflict,
    InvalidInput,
    InvalidRequest,
    JobNotCancellable,
    JobNotFound,
    KeyNotGood,
    KeyUnknown,
    LimitReached,
    LoginNotOffered,
    PayloadTooLarge,
    RequestError,
    ResultLost,
    SynapseError,
    TenantUnknown,
    Unauthenticated,
    Unavailable,
    UnknownModel,
    UnsupportedEncoding,
    UploadUnknown,
    WebhookUnknown,
)
from synapse.domain.job import Failure
from synapse.domain.limiting import OUT_OF_BUDGET

_STATUSES: Sequence[tuple[type[SynapseError], HTTPStatus]] = (
    (Unauthenticated, HTTPStatus.UNAUTHORIZED),
    (Forbidden, HTTPStatus.FORBIDDEN),
    (LimitReached, HTTPStatus.TOO_MANY_REQUESTS),
    (LoginNotOffered, HTTPStatus.NOT_FOUND),
    (UnknownModel, HTTPStatus.NOT_FOUND),
    (JobNotFound, HTTPStatus.NOT_FOUND),
    (ResultLost, HTTPStatus.GONE),
    (FileUnknown, HTTPStatus.NOT_FOUND),
    (UploadUnknown, HTTPStatus.NOT_FOUND),
    (FileBatchNotFound, HTTPStatus.NOT_FOUND),
    (WebhookUnknown, HTTPStatus.NOT_FOUND),
    (KeyUnknown, HTTPStatus.NOT_FOUND),
    (TenantUnknown, HTTPStatus.NOT_FOUND),
    (JobNotCancellable, HTTPStatus.CONFLICT),
    (FileBatchNotCancellable, HTTPStatus.CONFLICT),
    (KeyNotGood, HTTPStatus.CONFLICT),
    (IdempotencyConflict, HTTPStatus.UNPROCESSABLE_ENTITY),
    (BodyStalled, HTTPStatus.REQUEST_TIMEOUT),
    (UnsupportedEncoding, HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
    (PayloadTooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (RequestError, HTTPStatus.BAD_REQUEST),
    (Unavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (InvalidInput, HTTPStatus.BAD_REQUEST),
    (EngineUnavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (EngineLost, HTTPStatus.SERVICE_UNAVAILABLE),
    (EngineTimeout, HTTPStatus.GATEWAY_TIMEOUT),
    (SynapseError, HTTPStatus.INTERNAL_SERVER_ERROR),
)

ToldError = dict[str, dict[str, str | None]]
"""An error as callers are told of it."""

INTERNAL_MESSAGE = "something went wrong on our side; the request id finds it in the log"


def status_of(error: SynapseError) -> HTTPStatus:
    """The HTTP status of an error: that of its nearest class in the table."""
    return next(status for cls, status in _STATUSES if isinstance(error, cls))


def error_type(status: int, code: str) -> str:
    """OpenAI's `type` of an error; that of a budget that is used up is its code."""
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return OUT_OF_BUDGET if code == OUT_OF_BUDGET else "rate_limit_error"
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return "authentication_error"
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return "server_error"
    return "invalid_request_error"


def error_body(status: int, message: str, *, code: str, param: str | None = None) -> ToldError:
    """The body of an error response."""
    kind = error_type(status, code)
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def body_of(error: SynapseError) -> ToldError:
    """The body that tells a caller of an error."""
    return error_body(status_of(error), error.message, code=error.code, param=error.param)


def failure_body(failure: Failure) -> dict[str, str | None]:
    """A job's failure in the same four keys, as a result carries it."""
    blamed_on_input = failure.code in ("invalid_input", "context_length_exceeded")
    kind = "invalid_request_error" if blamed_on_input else "server_error"
    return {"message": failure.message, "type": kind, "param": None, "code": failure.code}


def validation_error(errors: Sequence[Mapping[str, Any]]) -> tuple[str, str | None, str]:
    """Message, param and code of pydantic's findings: the first one, said plainly."""
    first = errors[0]
    if first["type"] == "json_invalid":
        return "body: not valid JSON", None, "invalid_json"
    param = ".".join(_places(first)) or None
    reason = _REASONS.get(first["type"]) or _decapitalised(str(first["msg"]))
    return f"{param or 'body'}: {reason}", param, _code(str(first["type"]))


class InvalidBody(InvalidRequest):
    """A body that does not have the form of its route's."""

    def __init__(self, errors: Sequence[Mapping[str, Any]]) -> None:
        message, param, self.code = validation_error(errors)
        super().__init__(message, param=param)


_SOURCES = frozenset({"body", "query", "path", "header"})
_REASONS = {
    "missing": "is required",
    "extra_forbidden": "is not a field of this request; see /api/docs",
}


def _places(error: Mapping[str, Any]) -> list[str]:
    """Where an error is, without what pydantic's path says besides.

    That is where the value came from, which is said first, and which branch of a union it tried.
    The name of a field that nobody knows may be any of these words.
    """
    parts = [str(part) for part in error["loc"]]
    unknown = parts[-1:] if error["type"] == "extra_forbidden" else []
    known = parts[: len(parts) - len(unknown)]
    if known and known[0] in _SOURCES:
        del known[0]
    return [part for part in known if not _is_branch(part)] + unknown


def _is_branch(part: str) -> bool:
    return part == "str" or part.startswith(("constrained-", "list["))


def _code(kind: str) -> str:
    if kind == "missing":
        return "missing_required_parameter"
    if kind == "extra_forbidden":
        return "unknown_parameter"
    return "invalid_type" if kind.endswith("_type") else "invalid_value"


def _decapitalised(text: str) -> str:
    return text[:1].lower() + text[1:]
