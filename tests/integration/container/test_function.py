"""A Lambda function's container: two children that live and die together, and the handler."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from synapse.domain.errors import EngineUnavailable
from synapse_container import function, handler

ENDS = (sys.executable, "-c", "pass")


def marks(path: Path) -> tuple[str, ...]:
    """A child that says when it is up, and of SIGTERM."""
    code = (
        "import pathlib, signal, sys, time\n"
        f"path = pathlib.Path({str(path)!r})\n"
        "def stop(*_):\n    path.write_text('stopped'); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, stop)\npath.write_text('up')\ntime.sleep(60)\n"
    )
    return (sys.executable, "-c", code)


@pytest.mark.parametrize("ends_first", ["worker", "runtime"])
async def test_if_one_ends_so_does_the_other(tmp_path: Path, ends_first: str) -> None:
    mark = tmp_path / "mark"
    waits = (
        sys.executable,
        "-c",
        f"import pathlib, time\nwhile not pathlib.Path({str(mark)!r}).exists(): time.sleep(0.01)",
    )
    other = marks(mark)
    worker, runtime = (waits, other) if ends_first == "worker" else (other, waits)

    given_up = await asyncio.wait_for(function.run_function(worker, runtime), 20)

    assert given_up
    assert mark.read_text() == "stopped"


async def test_a_signal_ends_both_in_good_order(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    running = asyncio.create_task(function.run_function(marks(one), marks(other)))
    while not (one.exists() and other.exists()):
        await asyncio.sleep(0.01)

    os.kill(os.getpid(), signal.SIGTERM)

    assert await asyncio.wait_for(running, 60) == ""
    assert (one.read_text(), other.read_text()) == ("stopped", "stopped")


async def test_a_child_that_does_not_stop_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function, "STOP_TIMEOUT_S", 0.2)
    deaf = (
        sys.executable,
        "-c",
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)",
    )

    assert await asyncio.wait_for(function.run_function(ENDS, deaf), 20)


def test_where_there_is_shared_memory_nothing_is_preloaded(tmp_path: Path) -> None:
    library = tmp_path / "shm_files.so"
    library.touch()

    assert function.worker_environment({"A": "b"}, tmp_path, library) == {"A": "b"}


def test_where_there_is_none_files_stand_in_for_it(tmp_path: Path) -> None:
    library, folder = tmp_path / "shm_files.so", tmp_path / "shm"
    library.touch()

    env = function.worker_environment({"A": "b"}, tmp_path / "none", library, folder)

    assert env == {"A": "b", "LD_PRELOAD": str(library), "SYNAPSE_SHM_DIR": str(folder)}
    assert folder.is_dir()


@contextmanager
def engine(monkeypatch: pytest.MonkeyPatch, *statuses: int) -> Iterator[list[str]]:
    """An engine that answers with these, and then with 200."""
    left, asked = list(statuses), list[str]()

    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(left.pop(0) if left else 200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Health)
    monkeypatch.setattr(handler, "READY", f"http://127.0.0.1:{server.server_port}/ready")
    monkeypatch.setattr(handler, "_is_up", False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield asked
    finally:
        server.shutdown()
        server.server_close()


def test_the_first_batch_waits_for_the_engine_and_no_other_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with engine(monkeypatch, 400, 400) as asked:
        handler.wait_until_up(10)
        handler.wait_until_up(10)

    assert len(asked) == 3


def test_an_engine_that_does_not_come_up_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler, "READY", "http://127.0.0.1:1/ready")
    monkeypatch.setattr(handler, "_is_up", False)

    with pytest.raises(EngineUnavailable):
        handler.wait_until_up(0.2)
