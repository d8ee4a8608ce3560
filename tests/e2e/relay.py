"""Lets containers reach what listens on the loopback interface only."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def relay(host: str, port: int) -> Iterator[None]:
    """Pass connections to `host`:`port`, an interface of Docker's, on to 127.0.0.1:`port`."""
    with socket.create_server((host, port)) as server:
        acceptor = threading.Thread(target=_accept, args=(server, port), daemon=True)
        acceptor.start()
        try:
            yield
        finally:
            server.shutdown(socket.SHUT_RDWR)
            acceptor.join()


def _accept(server: socket.socket, port: int) -> None:
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=_serve, args=(client, port), daemon=True).start()


def _serve(client: socket.socket, port: int) -> None:
    with client, socket.create_connection(("127.0.0.1", port)) as target:
        answers = threading.Thread(target=_pump, args=(target, client), daemon=True)
        answers.start()
        _pump(client, target)
        answers.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
