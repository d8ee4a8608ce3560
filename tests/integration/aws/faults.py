"""What goes wrong between a client and AWS: refusals, breakdowns, lost answers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from tests.aws import Call, intercepted
from tests.patience import PATIENCE_S

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
def unanswered(client: Any, *operations: str) -> Iterator[None]:
    """Calls of the operations take effect, and no answer comes, however often boto3 asks."""

    def around(call: Call, name: str, arguments: dict[str, Any]) -> Any:
        answer = call(name, arguments)
        if name in operations:
            raise ReadTimeoutError(endpoint_url="https://dynamodb")
        return answer

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


async def cancelled_on_the_way(client: Any, at: str, work: Coroutine[Any, Any, Any]) -> None:
    """Cancel it while its call of that name is on its way, which gets there all the same."""
    sent, done, go_on = asyncio.Event(), asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def slow(make_call: Call, operation: str, arguments: dict[str, Any]) -> Any:
        if operation == at:
            loop.call_soon_threadsafe(sent.set)
            assert go_on.wait(PATIENCE_S)
        try:
            return make_call(operation, arguments)
        finally:
            if operation == at:
                loop.call_soon_threadsafe(done.set)

    with intercepted(client, slow):
        task = asyncio.create_task(work)
        await sent.wait()
        task.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        await done.wait()
