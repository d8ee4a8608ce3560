"""Asks Triton over HTTP. Standard library only, one connection a question."""

import asyncio
import contextlib


async def http_status(host: str, port: int, path: str, timeout_s: float) -> int | None:
    """The status of a GET, or None when there is no answer in time."""
    try:
        status, _ = await http_call(f"{host}:{port}", path, timeout_s)
    except (OSError, TimeoutError):
        return None
    return status


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
            raw = await reader.read()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    head, _, content = raw.partition(b"\r\n\r\n")
    parts = head.split(maxsplit=2)
    if len(parts) < 2 or not parts[1].isdigit():
        raise ConnectionResetError(f"{address} broke off its answer")
    return int(parts[1]), content


def _request(address: str, path: str, body: bytes | None) -> bytes:
    head = f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nHost: {address}\r\n"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + (body or b"")
