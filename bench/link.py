"""A link of a known rate: an HTTP server that answers byte ranges no faster than it is told.

Run as a process of its own it does not take the client's interpreter: `python -m bench.link`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

CHUNK_BYTES = 128 << 10
MAX_CREDIT_S = 0.02
"""What a sleep took too long is made up for; idle time is not."""
RANGE = re.compile(r"bytes=(\d+)-(\d+)")


@dataclass(frozen=True, slots=True)
class Asked:
    """A range that a client wanted; all of a file where it named none."""

    path: str
    start: int
    length: int


class Pace:
    """So many bytes a second, over all who ask."""

    def __init__(self, bytes_per_s: float) -> None:
        """0 is no limit; it may be changed at any time."""
        self.bytes_per_s = bytes_per_s
        self._free_at = 0.0
        self._lock = threading.Lock()

    def take(self, count: int) -> None:
        """Wait for the turn of `count` bytes."""
        rate = self.bytes_per_s
        if not rate:
            return
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now - MAX_CREDIT_S) + count / rate
            wait_s = self._free_at - now
        if wait_s > 0:
            time.sleep(wait_s)


class LinkServer(ThreadingHTTPServer):
    """Files of a folder on 127.0.0.1. `rate` and `connection_rate` are bytes a second, 0 no limit.

    `asked` is what clients wanted so far.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(
        self,
        folder: Path,
        rate: float = 0.0,
        connection_rate: float = 0.0,
        handler: type[Handler] | None = None,
    ) -> None:
        """Listens at once; `serve_forever` answers."""
        super().__init__(("127.0.0.1", 0), handler or Handler)
        self.folder = folder
        self.pace = Pace(rate)
        self.connection_rate = connection_rate
        self.asked: list[Asked] = []

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: LinkServer

    def setup(self) -> None:
        """Each connection has a pace of its own besides the link's."""
        super().setup()
        self._pace = Pace(self.server.connection_rate)
        self._headers: dict[str, str] = {}

    def do_GET(self) -> None:
        """A range, or all of a file."""
        path = unquote(urlsplit(self.path).path).lstrip("/")
        try:
            file = os.open(self.server.folder / path, os.O_RDONLY)
        except OSError:
            return self.refuse(HTTPStatus.NOT_FOUND)
        try:
            self._answer(path, file)
        except ConnectionError:
            self.close_connection = True
        finally:
            os.close(file)

    def _answer(self, path: str, file: int) -> None:
        found = os.fstat(file)
        etag = f'"{found.st_ino}-{found.st_mtime_ns}"'
        wanted = RANGE.fullmatch(self.headers.get("Range", ""))
        first, last = map(int, wanted.groups()) if wanted else (0, found.st_size - 1)
        if self.headers.get("If-Match", etag) != etag:
            return self.refuse(HTTPStatus.PRECONDITION_FAILED)
        if wanted and first >= found.st_size:
            return self.refuse(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
        last = min(last, found.st_size - 1)
        asked = Asked(path, first, last - first + 1)
        self.server.asked.append(asked)
        self._headers = {"ETag": etag, "Content-Length": str(asked.length)}
        if wanted:
            self._headers["Content-Range"] = f"bytes {first}-{last}/{found.st_size}"
        self.answer(asked, file)

    def answer(self, asked: Asked, file: int) -> None:
        """Headers and bytes; for one with faults to do otherwise."""
        self.begin()
        self.send(file, asked.start, asked.length)

    def begin(self) -> None:
        """The headers."""
        is_part = "Content-Range" in self._headers
        self.send_response(HTTPStatus.PARTIAL_CONTENT if is_part else HTTPStatus.OK)
        for name, value in self._headers.items():
            self.send_header(name, value)
        self.end_headers()

    def send(self, file: int, start: int, length: int) -> None:
        """Bytes of a file, at the pace of the connection and of the link."""
        end = start + length
        while start < end:
            count = min(CHUNK_BYTES, end - start)
            self._pace.take(count)
            self.server.pace.take(count)
            while count:
                sent = os.sendfile(self.connection.fileno(), file, start, count)
                start, count = start + sent, count - sent

    def refuse(self, status: HTTPStatus, headers: dict[str, str] | None = None) -> None:
        """An answer without content; the connection is kept."""
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


@contextlib.contextmanager
def link(folder: Path, rate: float = 0.0, connection_rate: float = 0.0) -> Iterator[str]:
    """A server in a process of its own; gives its address."""
    command = [sys.executable, "-m", "bench.link", str(folder)]
    command += ["--rate", str(rate), "--connection-rate", str(connection_rate)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def main() -> None:
    """Serve until ended; the first line printed is the address."""
    parser = argparse.ArgumentParser(prog="python -m bench.link", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rate", type=float, default=0.0, help="bytes a second; 0: no limit")
    parser.add_argument("--connection-rate", type=float, default=0.0, help="of each connection")
    given = parser.parse_args()
    with LinkServer(given.folder, given.rate, given.connection_rate) as server:
        print(server.url, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
