"""One way to call AWS: in a thread, with its passing faults turned into `Unavailable`."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from http import HTTPStatus
from typing import ParamSpec, TypeVar

from botocore.exceptions import (
    ClientError,
    ConnectionError,
    HTTPClientError,
    IncompleteReadError,
)

from synapse.domain.errors import Unavailable

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

MAX_CONCURRENT_CALLS = 32
"""Give the clients as many connections (`max_pool_connections`)."""

# Beside everything with "Throttl" in its name and all 5xx.
TRANSIENT_CODES = frozenset(
    {
        "LimitExceededException",
        "OverLimit",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestTimeout",
        "RequestTimeoutException",
        "SlowDown",
        "TransactionConflictException",
        "TransactionInProgressException",
    }
)


@cache
def _threads() -> ThreadPoolExecutor:
    # Kept between invocations, unlike the event loop's own, and enough for a batch's fan-out.
    return ThreadPoolExecutor(MAX_CONCURRENT_CALLS, thread_name_prefix="aws")


async def call(operation: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a blocking boto3 operation without blocking the loop.

    Raises:
        Unavailable: AWS could not be reached, is overloaded or broke down; boto3 has tried again.
        ClientError: AWS refused the request itself.
    """
    context = contextvars.copy_context()
    work = partial(context.run, operation, *args, **kwargs)
    try:
        return await asyncio.get_running_loop().run_in_executor(_threads(), work)
    except ClientError as error:
        if is_transient(error):
            raise unavailable(error) from error
        raise
    except (ConnectionError, HTTPClientError, IncompleteReadError) as error:
        raise Unavailable("a service that this one stands on cannot be reached") from error


async def or_given_back(taking: Awaitable[R], give_back: Callable[[R], Awaitable[None]]) -> R:
    """What is taken; where who takes it is cancelled meanwhile, it is given back.

    A call that is on its way gets there, whoever waits for it: then nobody would hold what it took.
    """
    took = asyncio.ensure_future(taking)
    try:
        return await asyncio.shield(took)
    except asyncio.CancelledError:
        # Another cancellation ends the wait for it, and not what is waited for.
        await asyncio.shield(_given_back(took, give_back))
        raise


async def _given_back(took: asyncio.Future[R], give_back: Callable[[R], Awaitable[None]]) -> None:
    try:
        await give_back(await took)
    except (ClientError, Unavailable):
        logger.warning("not given back; it counts until it expires", exc_info=True)


def error_code(error: ClientError) -> str:
    """AWS's name of the error."""
    return error.response.get("Error", {}).get("Code", "")


def is_transient(error: ClientError) -> bool:
    """Whether the same request may succeed later."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = error_code(error)
    return (
        status >= HTTPStatus.INTERNAL_SERVER_ERROR
        or status == HTTPStatus.TOO_MANY_REQUESTS
        or "Throttl" in code
        or code in TRANSIENT_CODES
    )


def unavailable(error: ClientError) -> Unavailable:
    """The error that a caller is told: which call failed, nothing of our insides."""
    return Unavailable(f"{error.operation_name} failed for now ({error_code(error)})")
