"""What goes wrong beneath the adapters: in AWS's answers, and in SQLite's transactions."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Any, TypeVar

from botocore.exceptions import ClientError, EndpointConnectionError

from synapse.adapters.local.database import Database
from tests.aws import Call

T = TypeVar("T")


class Fault(StrEnum):
    """What becomes of one call."""

    THROTTLED = "ThrottlingException"
    NO_THROUGHPUT = "ProvisionedThroughputExceededException"
    BROKEN = "500 without effect"
    UNREACHABLE = "not reached"
    LOST = "done, and the answer lost for good"
    REPEATED = "done, the answer lost, and the call repeated"
    PARTIAL = "a batch done in part, a transaction in conflict, or all of it but its commit"


class Trouble:
    """The faults of the next calls, one each; None, and whatever comes after them, goes through.

    `unconfirmed` counts the changes of single records that were made, and nobody was told so.
    """

    def __init__(self) -> None:
        self._plan: list[Fault | None] = []
        self.happened: Counter[Fault] = Counter()
        self.unconfirmed = 0

    def plan(self, faults: Sequence[Fault | None]) -> None:
        """What becomes of the next calls; what was left of an earlier plan is forgotten."""
        self._plan = list(faults)

    def next(self) -> Fault | None:
        """What becomes of this call."""
        return self._plan.pop(0) if self._plan else None

    @contextlib.contextmanager
    def put_off(self) -> Iterator[None]:
        """Calls that a test makes for itself go through."""
        kept, self._plan = self._plan, []
        try:
            yield
        finally:
            self._plan = kept

    def around_aws(self, call: Call, operation: str, arguments: dict[str, Any]) -> Any:
        """Make one call of AWS, or what a fault makes of it."""
        fault = self.next()
        if fault is None:
            return call(operation, arguments)
        if fault is Fault.PARTIAL and operation not in PARTIAL:
            return call(operation, arguments)
        self.happened[fault] += 1
        match fault:
            case Fault.THROTTLED | Fault.NO_THROUGHPUT:
                raise _answer(fault.value, operation, 400)
            case Fault.BROKEN:
                raise _answer("InternalServerError", operation, 500)
            case Fault.UNREACHABLE:
                raise EndpointConnectionError(endpoint_url="https://aws")
            case Fault.LOST:
                call(operation, arguments)
                self.unconfirmed += operation == "UpdateItem"
                raise _answer("InternalServerError", operation, 500)
            case Fault.REPEATED:
                if operation != "TransactWriteItems":  # whose token makes the second one nothing
                    # A copy: botocore makes a stream of a body, which can be read once.
                    call(operation, dict(arguments))
                return call(operation, arguments)
            case Fault.PARTIAL:
                return PARTIAL[operation](call, arguments)

    def in_sqlite(self) -> sqlite3.OperationalError | None:
        """What becomes of one transaction: the error of its commit, when all else is done.

        Raises:
            OperationalError: it is not begun. A commit whose answer is lost there is none.
        """
        fault = self.next()
        if fault is None or fault is Fault.REPEATED:
            return None
        self.happened[fault] += 1
        is_full = fault in (Fault.NO_THROUGHPUT, Fault.LOST, Fault.PARTIAL)
        error = sqlite3.OperationalError(
            "database or disk is full" if is_full else "database is locked"
        )
        if fault is Fault.PARTIAL:
            return error
        raise error


class TroubledDatabase(Database):
    """A database whose transactions have their share of `trouble`.

    They are made in their order, but by the loop itself, and not while it does something else.
    """

    trouble: Trouble | None = None

    def _queue(self, work: Callable[[], T]) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def make() -> None:
            if future.cancelled():  # who waited is gone; it is done all the same
                work()
                return
            try:
                future.set_result(work())
            except Exception as error:  # noqa: BLE001 - it is the caller's
                future.set_exception(error)

        loop.call_soon(make)
        return future

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        error = self.trouble.in_sqlite() if self.trouble is not None else None

        def uncommitted(connection: sqlite3.Connection) -> T:
            result = work(connection)
            if error is not None:
                raise error
            return result

        return super()._transact(uncommitted)

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self.trouble is not None:
            self.trouble.in_sqlite()
        return super()._read(work)


def _answer(code: str, operation: str, status: int, **more: Any) -> ClientError:
    metadata = {"HTTPStatusCode": status, "RetryAttempts": 3}
    body: Any = {"Error": {"Code": code, "Message": ""}, "ResponseMetadata": metadata, **more}
    return ClientError(body, operation)


def _send_in_part(call: Call, arguments: dict[str, Any]) -> Any:
    """The first half of the messages, rounded down, is in the queue; of the rest SQS says no."""
    entries = arguments["Entries"]
    half = len(entries) // 2
    sent = entries[:half]
    answer = call("SendMessageBatch", {**arguments, "Entries": sent}) if sent else {}
    failed = [
        {"Id": entry["Id"], "Code": "InternalError", "SenderFault": False}
        for entry in entries[half:]
    ]
    return {**answer, "Failed": failed}


def _conflict(call: Call, arguments: dict[str, Any]) -> Any:
    reasons = [{"Code": "TransactionConflict"} for _ in arguments["TransactItems"]]
    operation = "TransactWriteItems"
    raise _answer("TransactionCanceledException", operation, 400, CancellationReasons=reasons)


PARTIAL = {"SendMessageBatch": _send_in_part, "TransactWriteItems": _conflict}
"""The operations that can be done in part, or collide."""
