"""A store behind a plain HTTP server that answers byte ranges; also how S3's bytes are fetched.

Written on `http.client` because that hands over what the socket has, and no more is done with it.
"""

import contextlib
import http.client
import os
import re
import socket
import ssl
from collections.abc import Callable
from urllib.parse import quote, urlsplit

from synapse_worker.cache.config import TransferConfig
from synapse_worker.cache.manifest import MAX_MANIFEST_BYTES
from synapse_worker.cache.stores import Changed, Missing, Unreachable
from synapse_worker.errors import WorkerError

CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(?:\d+|\*)")
MAX_RETRY_AFTER_S = 60.0
BUSY = frozenset({408, 425, 429})
MAX_ERROR_BYTES = 64 << 10

Address = Callable[[str], str]
"""The address of a file of the store; asked for each range, for signed ones run out."""


class HttpStore:
    """Models below an address."""

    def __init__(self, root: str, config: TransferConfig) -> None:
        """Nothing is asked yet."""
        self._root = root.rstrip("/")
        self._config = config

    def address(self, path: str) -> str:
        """Of a file below the root."""
        return f"{self._root}/{quote(path)}"

    def read(self, path: str) -> bytes:
        """A small file whole."""
        connection = HttpConnection(self.address, self._config)
        try:
            return connection.read_whole(path)
        finally:
            connection.close()

    def connect(self) -> "HttpConnection":
        """A connection of the caller's own."""
        return HttpConnection(self.address, self._config)


class HttpStream:
    """The body of an answer."""

    def __init__(self, response: http.client.HTTPResponse, path: str) -> None:
        """Its headers are read."""
        self._response = response
        self._path = path
        self.etag = response.headers.get("ETag", "")

    def readinto(self, buffer: memoryview) -> int:
        """What has come, and at least a byte unless the body has ended.

        Waiting for a full buffer would make a slow line look like a silent one.
        """
        try:
            came = self._response.read1(len(buffer))
            if self._response.length == 0:
                self._response.close()  # else some versions of Python keep the connection busy
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unreachable(f"{self._path}: {_reason(error)}") from error
        buffer[: len(came)] = came
        return len(came)


class HttpConnection:
    """A connection that is kept between ranges; `address` says where a path is found."""

    def __init__(self, address: Address, config: TransferConfig) -> None:
        """Connects when it is first used."""
        self._address = address
        self._config = config
        self._origin = ("", "")
        self._connection: http.client.HTTPConnection | None = None
        self._socket: socket.socket | None = None

    def open(self, path: str, start: int, length: int, etag: str) -> HttpStream:
        """Ask for a range; a server that sends something else is refused."""
        headers = {"Range": f"bytes={start}-{start + length - 1}", "Accept-Encoding": "identity"}
        if etag and not etag.startswith("W/"):  # weak ones never match
            headers["If-Match"] = etag
        response = self._ask(path, headers)
        self._check(response, path)
        if response.status == http.HTTPStatus.PARTIAL_CONTENT:
            found = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if found is None or [int(n) for n in found.groups()] != [start, start + length - 1]:
                raise Unreachable(f"{path}: another range was sent than was asked for")
        elif start or response.length != length:
            raise WorkerError(f"{path}: the server does not answer byte ranges", "Use another one")
        return HttpStream(response, path)

    def read_whole(self, path: str) -> bytes:
        """A small file."""
        response = self._ask(path, {})
        self._check(response, path)
        try:
            content = response.read(MAX_MANIFEST_BYTES + 1)
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{path}: {_reason(error)}") from error
        if len(content) > MAX_MANIFEST_BYTES:
            raise WorkerError(f"{path} is larger than any manifest")
        return content

    def abort(self) -> None:
        """Wakes up a thread that waits for bytes."""
        if (current := self._socket) is not None:
            with contextlib.suppress(OSError):
                current.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """The next use connects again."""
        self._socket = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self, path: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        address = urlsplit(self._address(path))
        target = f"{address.path or '/'}?{address.query}" if address.query else address.path
        try:
            connection = self._connected(address.scheme, address.netloc)
            connection.request("GET", target, headers=headers)
            return connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{address.netloc}: {_reason(error)}") from error

    def _connected(self, scheme: str, netloc: str) -> http.client.HTTPConnection:
        if self._connection is not None and self._origin == (scheme, netloc):
            return self._connection
        self.close()
        connection = _new(scheme, netloc, self._config.connect_timeout_s)
        connection.connect()
        connection.sock.settimeout(self._config.stall_timeout_s)
        self._origin, self._connection, self._socket = (scheme, netloc), connection, connection.sock
        return connection

    def _check(self, response: http.client.HTTPResponse, path: str) -> None:
        status = response.status
        if status in (http.HTTPStatus.OK, http.HTTPStatus.PARTIAL_CONTENT):
            return
        detail = self._detail(response)
        if status == http.HTTPStatus.NOT_FOUND:
            raise Missing(f"The model store has no {path}")
        if status == http.HTTPStatus.PRECONDITION_FAILED:
            raise Changed(f"{path} has changed")
        # A file that has become shorter than the manifest says has no such range any more.
        if status == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise Changed(f"{path} is shorter than its manifest says")
        if status in BUSY or status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
            raise Unreachable(f"{path}: {detail}", _retry_after_s(response))
        raise WorkerError(f"The model store refuses {path}: {detail}", "Check address and rights")

    def _detail(self, response: http.client.HTTPResponse) -> str:
        """Status and reason, and S3's own code; what else the body holds is of no use here."""
        try:
            body = response.read(MAX_ERROR_BYTES)
            if not response.isclosed():  # there is more, and it would be read as the next answer
                self.close()
        except (OSError, http.client.HTTPException):
            body = b""
            self.close()
        code = re.search(rb"<Code>(\w+)</Code>", body)
        reason = code[1].decode() if code else response.reason
        return f"{response.status} {reason}".strip()


def _new(scheme: str, netloc: str, timeout_s: float) -> http.client.HTTPConnection:
    if scheme == "http":
        return http.client.HTTPConnection(netloc, timeout=timeout_s)
    context = ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE") or None)
    return http.client.HTTPSConnection(netloc, timeout=timeout_s, context=context)


def _retry_after_s(response: http.client.HTTPResponse) -> float:
    value = response.headers.get("Retry-After", "")
    return min(float(value), MAX_RETRY_AFTER_S) if value.isdecimal() else 0.0


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
