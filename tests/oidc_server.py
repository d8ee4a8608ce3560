"""An identity provider on this machine, which answers, fails, dawdles and rotates as it is told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.tokens import SigningKey, key_set

Answer = Callable[[BaseHTTPRequestHandler], None]


class OidcServer:
    """Publishes its keys at `url`; `answer`, if there is one, answers instead."""

    def __init__(self, *keys: SigningKey) -> None:
        self.keys = keys
        self.asked: list[str] = []
        self.answer: Answer | None = None
        self._server = self._listen(0)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.jwks_url = f"{self.url}/keys"

    def __enter__(self) -> Self:
        self._serve()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Go down: from now on connections are refused."""
        self._server.shutdown()
        self._server.server_close()

    def start(self) -> None:
        """Come back at the same address."""
        self._server = self._listen(self.port)
        self._serve()

    def document(self, path: str) -> dict[str, Any]:
        """What is published there."""
        if path == "/.well-known/openid-configuration":
            return {"issuer": self.url, "jwks_uri": self.jwks_url}
        return key_set(*self.keys)

    def _serve(self) -> None:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def _listen(self, port: int) -> ThreadingHTTPServer:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked.append(self.path)
                if provider.answer is not None:
                    provider.answer(self)
                else:
                    send(self, 200, json.dumps(provider.document(self.path)).encode())

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        server.daemon_threads = True
        return server


def send(to: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
    """A whole answer."""
    to.send_response(status)
    for name, value in {**headers, "Content-Length": str(len(body))}.items():
        to.send_header(name, value)
    to.end_headers()
    to.wfile.write(body)


def dribble(to: BaseHTTPRequestHandler) -> None:
    """An answer that comes byte by byte and never ends, as long as somebody reads."""
    to.send_response(200)
    to.end_headers()
    try:
        while True:
            to.wfile.write(b" ")
            time.sleep(0.1)
    except OSError:
        return
