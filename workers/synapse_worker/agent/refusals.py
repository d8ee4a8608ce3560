"""How the control API says no: one table from what is refused to status and code."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse

from synapse_worker.agent.errors import NoRoom, NotNow, TooLarge
from synapse_worker.errors import UnknownModel, WorkerError

CODES: Mapping[type[WorkerError], tuple[HTTPStatus, str]] = {
    UnknownModel: (HTTPStatus.NOT_FOUND, "model_not_found"),
    NoRoom: (HTTPStatus.INSUFFICIENT_STORAGE, "no_room"),
    TooLarge: (HTTPStatus.INSUFFICIENT_STORAGE, "too_large"),
    NotNow: (HTTPStatus.SERVICE_UNAVAILABLE, "not_now"),
}
RETRY_AFTER_S = 5


class BadRequest(Exception):
    """What was sent cannot be meant."""

    def __init__(self, message: str, param: str | None = None) -> None:
        """`param` is the field that is wrong."""
        super().__init__(message)
        self.param = param


def worker_refusal(error: WorkerError) -> JSONResponse:
    """What the agent could not do."""
    status, code = CODES.get(type(error), (HTTPStatus.BAD_GATEWAY, "load_failed"))
    return refusal(status, str(error), code, "model" if status == HTTPStatus.NOT_FOUND else None)


def refusal(
    status: int, message: str, code: str | None = None, param: str | None = None
) -> JSONResponse:
    """An error in the shape that the whole of Synapse has."""
    kind = "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "server_error"
    error: dict[str, Any] = {"message": message, "type": kind, "param": param, "code": code}
    retry = status == HTTPStatus.SERVICE_UNAVAILABLE
    headers = {"Retry-After": str(RETRY_AFTER_S)} if retry else None
    return JSONResponse({"error": error}, status, headers)
