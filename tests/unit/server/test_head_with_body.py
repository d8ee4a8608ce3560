"""What leaves a connection, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from synapse_server.head_with_body import HeadWithBody


class Wire(asyncio.Transport):
    """Notes each write, and drops what comes once it is closing, as real ones do."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.closing = False

    def write(self, data: Any) -> None:
        if not self.closing:
            self.sent.append(bytes(data))

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        self.closing = True

    def is_closing(self) -> bool:
        return self.closing


def one() -> tuple[Wire, HeadWithBody]:
    wire = Wire()
    return wire, HeadWithBody(wire, asyncio.get_running_loop())


async def test_a_whole_answer_is_one_write() -> None:
    wire, response = one()

    response.write(b"head")
    response.write(b"body")

    assert wire.sent == [b"headbody"]
    await asyncio.sleep(0.01)
    assert wire.sent == [b"headbody"]


async def test_a_head_does_not_wait_for_a_body_that_comes_later() -> None:
    wire, response = one()

    response.write(b"head")
    await asyncio.sleep(0.01)
    at_once = list(wire.sent)
    response.write(b"chunk 1")
    response.write(b"chunk 2")

    assert at_once == [b"head"]
    assert wire.sent == [b"head", b"chunk 1", b"chunk 2"]


async def test_a_head_alone_leaves_before_the_end() -> None:
    wire, response = one()

    response.write(b"head")
    response.close()

    assert wire.sent == [b"head"]
    assert response.is_closing()


async def test_what_another_closed_is_not_written_to() -> None:
    wire, response = one()

    response.write(b"head")
    wire.close()
    await asyncio.sleep(0.01)

    assert wire.sent == []
