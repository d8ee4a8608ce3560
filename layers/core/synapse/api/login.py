"""`POST /api/auth/login`: a name and a password for a bearer token.

It is for everybody, so it takes no more than a name and a password need, and nothing of what it
took is in its answers or in a log.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError

from synapse.api.errors import InvalidBody
from synapse.api.replies import NOT_KEPT
from synapse.api.resolver import Api, Incoming, Reply
from synapse.api.responses import errors, json_response
from synapse.api.schemas import Request
from synapse.api.services import Services
from synapse.api.wire import WireModel
from synapse.domain.errors import LoginNotOffered, PayloadTooLarge
from synapse.domain.user import MAX_PASSWORD_CHARS

MAX_BODY_BYTES = 16 * 1024
"""A password of the longest kind, each character written as an escape."""

MAX_USERNAME_CHARS = 256


class LoginRequest(Request):
    """Who logs in."""

    username: str = Field(min_length=1, max_length=MAX_USERNAME_CHARS)
    password: SecretStr = Field(min_length=1, max_length=MAX_PASSWORD_CHARS)


class LoginBody(WireModel):
    """A token to send as `Authorization: Bearer …`."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"
    expires_in: int = Field(description="Seconds until it is good no more.")


_BODY = {
    "required": True,
    "content": {"application/json": {"schema": LoginRequest.model_json_schema()}},
}


def add_login_route(api: Api, services: Services) -> None:
    """Register the route on `api`."""

    @api.receives(
        "POST",
        "/api/auth/login",
        scope=None,
        summary="Log in with a name and a password",
        tags=["access"],
        responses={
            200: json_response("A token", LoginBody),
            **errors(400, 401, 403, 404, 413, 429, 503),
        },
        openapi_extensions={"requestBody": _BODY},
    )
    async def login(incoming: Incoming) -> Reply:
        if services.login is None:
            raise LoginNotOffered("nobody logs in here with a password; send an API key or a token")
        asked = await _read(incoming)
        grant = await services.login.grant(
            asked.username, asked.password.get_secret_value(), incoming.address
        )
        body = LoginBody(access_token=grant.access_token, expires_in=grant.expires_in_s)
        return Reply(body, headers=NOT_KEPT)


async def _read(incoming: Incoming) -> LoginRequest:
    text = bytearray()
    async for chunk in incoming.chunks:
        text += chunk
        if len(text) > MAX_BODY_BYTES:
            raise PayloadTooLarge(f"body: at most {MAX_BODY_BYTES} bytes are accepted")
    try:
        return LoginRequest.model_validate_json(bytes(text))
    except ValidationError as error:
        found: list[Any] = error.errors(include_url=False, include_input=False)
        # Not chained: the cause shows what was typed.
        raise InvalidBody(found) from None
