"""How responses are described in the OpenAPI document."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from synapse.api.wire import WireModel


class ErrorDetail(WireModel):
    """What went wrong, where, and how to fix it."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(WireModel):
    """The body of every error."""

    error: ErrorDetail


def json_response(description: str, model: type[BaseModel]) -> dict[str, Any]:
    """A JSON response with a body of `model`."""
    return {"description": description, "content": {"application/json": {"model": model}}}


ERRORS: dict[int, Any] = {
    400: json_response("The request is malformed; `param` names the field", ErrorBody),
    401: json_response("No credential, or one that is not valid", ErrorBody),
    403: json_response("The key or token may not do this", ErrorBody),
    404: json_response("No such model, job, file, upload, batch, key or route", ErrorBody),
    409: json_response("It has already ended", ErrorBody),
    413: json_response("The input is too large", ErrorBody),
    422: json_response("The idempotency key was used with another body", ErrorBody),
    429: json_response("Too much or too often; see Retry-After", ErrorBody),
    503: json_response("Not accepted for now; see Retry-After", ErrorBody),
}

RESULT_LOST: dict[int, Any] = {
    410: json_response("The job has completed, and its result is no longer kept", ErrorBody)
}


def errors(*statuses: int) -> dict[int, Any]:
    """The error responses of these statuses."""
    return {status: ERRORS[status] for status in statuses}
