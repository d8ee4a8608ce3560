"""Asks Triton over HTTP. Standard library only, one connection a question."""

import asyncio
import contextlib
import json
import re
from collections.abc import Mapping


async def http_status(host: str, port: int, path: str, timeout_s: float) -> int | None:
    """The status of a GET, or None when there is no answer in time."""
    try:
        status, _ = await http_call(f"{host}:{port}", path, timeout_s)
    except (OSError, TimeoutError):
        return None
    return status


async def model_states(address: str, timeout_s: float) -> Mapping[str, set[str]]:
    """What Triton says of the versions of each model in its repository, such as READY.

    Raises:
        OSError: nobody answers, or what comes is no answer.
        TimeoutError: the answer is not there in time.
    """
    _, answer = await http_call(address, "/v2/repository/index", timeout_s, b"{}")
    states: dict[str, set[str]] = {}
    for each in json.loads(answer or b"[]"):
        states.setdefault(each["name"], set()).add(each.get("state", ""))
    return states


async def unloading_models(address: str, timeout_s: float) -> set[str]:
    """The models that Triton has not let go of yet; raises the same."""
    states = await model_states(address, timeout_s)
    return {model for model, those in states.items() if "UNLOADING" in those}


async def is_loaded(address: str, model: str, timeout_s: float) -> bool:
    """Whether Triton takes the model for loaded, though its backend may be gone; False unanswered.

    Its repository is asked: of the model itself newer Tritons say that it is not ready also where
    its backend has died.
    """
    try:
        return "READY" in (await model_states(address, timeout_s)).get(model, ())
    except (OSError, TimeoutError):
        return False


async def http_call(
    address: str, path: str, timeout_s: float, body: bytes | None = None
) -> tuple[int, bytes]:
    """Status and body of a GET, or of a POST where there is a `body`.

    Raises:
        OSError: nobody answers, or what comes is no answer.
        TimeoutError: the answer is not there in time.
    """
    host, _, port = address.rpartition(":")
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(_request(address, path, body))
            return await _answer(reader)
        except (asyncio.IncompleteReadError, ValueError) as error:
            raise ConnectionResetError(f"{address} broke off its answer") from error
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """By its length: after a POST, Triton leaves the connection open whatever it was told."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = re.search(r"^content-length:\s*(\d+)", head, re.M)
    body = await (reader.readexactly(int(length[1])) if length else reader.read())
    return int(head.split(maxsplit=2)[1]), body


def _request(address: str, path: str, body: bytes | None) -> bytes:
    head = f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nHost: {address}\r\n"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + (body or b"")
