"""A receiver of webhooks on loopback, for servers in other processes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from openai import OpenAI

from tests.patience import PATIENCE_S


@dataclass(frozen=True)
class Hook:
    """One request that came in."""

    path: str
    headers: Mapping[str, str]
    body: str

    def event(self, secret: str) -> dict[str, object]:
        """The event, if the signature is that of the secret."""
        event = OpenAI(api_key="none").webhooks.unwrap(self.body, self.headers, secret=secret)
        return event.to_dict()


@dataclass
class Hooks:
    """What came in so far; `answers` are the next statuses of a path, 200 after them."""

    port: int
    came: list[Hook] = field(default_factory=list)
    answers: dict[str, deque[int]] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """What an operator allows."""
        return f"127.0.0.1:{self.port}"

    def url(self, path: str, *answers: int) -> str:
        """A URL here that is answered so."""
        self.answers[path] = deque(answers)
        return f"http://{self.place}{path}"

    def at(self, path: str, count: int = 1, timeout_s: float = PATIENCE_S) -> list[Hook]:
        """What came in for a path, once there are so many."""
        found: list[Hook] = []

        def enough() -> bool:
            found[:] = [hook for hook in list(self.came) if hook.path == path]
            return len(found) >= count

        _wait(enough, timeout_s)
        return found


def _wait(holds: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"nothing came within {timeout_s:g} s"
        time.sleep(0.05)


@contextlib.contextmanager
def receiving() -> Iterator[Hooks]:
    """A receiver for as long as the block lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("content-length", "0"))
            body = self.rfile.read(length).decode()
            if len(body.encode()) < length:
                return  # its sender died over it
            answers = hooks.answers.get(self.path)
            status = answers.popleft() if answers else 200
            hooks.came.append(Hook(self.path, dict(self.headers.items()), body))
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hooks = Hooks(server.server_port)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hooks
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
