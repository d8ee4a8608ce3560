"""What goes wrong between a client and AWS: refusals, breakdowns, lost answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import ClientError

from tests.aws import Call, intercepted

Around = Callable[[Call, str, dict[str, Any]], Any]


def client_error(code: str, operation: str = "UpdateItem", status: int = 400) -> ClientError:
    """An error as AWS answers it."""
    return ClientError(
        {
            "Error": {"Code": code, "Message": "as told by AWS"},
            "ResponseMetadata": {
                "HTTPStatusCode": status,
                "HTTPHeaders": {},
                "HostId": "",
                "RequestId": "",
                "RetryAttempts": 0,
            },
        },
        operation,
    )


@contextmanager
def failing(client: Any, *errors: Exception) -> Iterator[None]:
    """The next calls fail, one per error; the calls after them go through."""
    pending = list(errors)

    def around(call: Call, operation: str, arguments: dict[str, Any]) -> Any:
        if pending:
            raise pending.pop(0)
        return call(operation, arguments)

    with intercepted(client, around):
        yield


@contextmanager
def answers_lost(client: Any, operation: str) -> Iterator[None]:
    """Calls of an operation take effect, their answer is lost, and boto3 repeats them."""

    def around(call: Call, name: str, arguments: dict[str, Any]) -> Any:
        if name == operation:
            call(name, arguments)
        return call(name, arguments)

    with intercepted(client, around):
        yield


@contextmanager
def counted(client: Any) -> Iterator[list[str]]:
    """The names of the calls that are made."""
    names: list[str] = []

    def around(call: Call, operation: str, arguments: dict[str, Any]) -> Any:
        names.append(operation)
        return call(operation, arguments)

    with intercepted(client, around):
        yield names
