"""Multipart forms as clients send them."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import Any

from synapse.api.resolver import Api
from tests.unit.api.calls import Answered

BOUNDARY = "a-boundary-of-the-tests"
FORM_TYPE = f"multipart/form-data; boundary={BOUNDARY}"

LAST_BOUNDARY = f"\r\n--{BOUNDARY}--\r\n".encode()

Field = tuple[str, str | None, bytes]
"""Name, filename, content."""


def purpose(value: str = "batch") -> Field:
    return ("purpose", None, value.encode())


def a_file(content: bytes = b'{"a":1}\n', filename: str = "in.jsonl", name: str = "file") -> Field:
    return (name, filename, content)


def form(*fields: Field) -> bytes:
    """The body of a form with these fields, in this order."""
    parts = [
        b'--%s\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
        % (
            BOUNDARY.encode(),
            name.encode(),
            b"" if filename is None else b'; filename="%s"' % filename.encode(),
            content,
        )
        for name, filename, content in fields
    ]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


async def post(
    api: Api, path: str, body: bytes, content_type: str = FORM_TYPE, **event: Any
) -> Answered:
    """Send a body as API Gateway sends one of a binary media type: in base64."""
    answer = await api.answer(
        {
            "httpMethod": "POST",
            "path": path,
            "headers": {"Content-Type": content_type},
            "multiValueHeaders": {"Content-Type": [content_type]},
            "queryStringParameters": None,
            "multiValueQueryStringParameters": None,
            "requestContext": {"stage": "dev", "path": f"/dev{path}", "requestId": "req-1"},
            "body": b64encode(body).decode(),
            "isBase64Encoded": True,
            **event,
        },
        None,
    )
    headers = {name.lower(): values[0] for name, values in answer["multiValueHeaders"].items()}
    return Answered(answer["statusCode"], headers, answer["body"])


async def upload(api: Api, *fields: Field) -> Answered:
    """Upload a file by the fields of its form."""
    return await post(api, "/v1/files", form(*(fields or (purpose(), a_file()))))


def chunked(content: bytes, size: int) -> Sequence[bytes]:
    """The content in chunks."""
    return [content[start : start + size] for start in range(0, len(content), size)]
