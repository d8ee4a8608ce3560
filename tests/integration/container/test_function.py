"""A Lambda function's container: its two children, and the handler."""

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
from tests.patience import PATIENCE_S

ENDS = (sys.executable, "-c", "pass")


def marks(path: Path) -> tuple[str, ...]:
    """A child that says when it is up, and of SIGTERM."""
    code = (
        "import pathlib, signal, sys, time\n"
        f"path = pathlib.Path({str(path)!r})\n"
        "def stop(*_):\n    path.write_text('stopped'); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, stop)\npath.write_text('up')\ntime.sleep(3600)\n"
    )
    return (sys.executable, "-c", code)


def _once_and_then_for_good(mark: Path, looks: Path, seen: Path) -> str:
    """A worker that ends at its first start, once the other looks, and is up after it."""
    _, _, stays = marks(mark)
    return (
        "import pathlib, sys, time\n"
        f"while not pathlib.Path({str(looks)!r}).exists(): time.sleep(0.001)\n"
        f"if not pathlib.Path({str(seen)!r}).exists(): sys.exit(1)\n{stays}"
    )


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function, "RESTART_AFTER_S", 0.01)


@pytest.mark.parametrize("ends_first", ["worker", "runtime"])
async def test_if_one_ends_for_good_so_does_the_other(tmp_path: Path, ends_first: str) -> None:
    mark = tmp_path / "mark"
    waits = (
        sys.executable,
        "-c",
        f"import pathlib, time\nwhile not pathlib.Path({str(mark)!r}).exists(): time.sleep(0.01)",
    )
    other = marks(mark)
    worker, runtime = (waits, other) if ends_first == "worker" else (other, waits)

    given_up = await asyncio.wait_for(function.run_function(worker, runtime), PATIENCE_S)

    assert given_up
    assert mark.read_text() == "stopped"


async def test_a_signal_ends_both_in_good_order(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    running = asyncio.create_task(function.run_function(marks(one), marks(other)))
    while not (one.exists() and other.exists()):
        await asyncio.sleep(0.01)

    os.kill(os.getpid(), signal.SIGTERM)

    assert await asyncio.wait_for(running, PATIENCE_S) == ""
    assert (one.read_text(), other.read_text()) == ("stopped", "stopped")


async def test_a_worker_that_ends_is_started_again_and_the_runtime_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one stays; the runtime ends when it has seen that there was none between."""
    monkeypatch.setattr(function, "RESTART_AFTER_S", 1.0)
    mark, looks, seen = tmp_path / "mark", tmp_path / "looks", tmp_path / "seen"
    worker = (sys.executable, "-c", _once_and_then_for_good(mark, looks, seen))
    knows = (
        "import os, pathlib, time\n"
        f"ended, seen = pathlib.Path(os.environ[{function.ENDED!r}]), pathlib.Path({str(seen)!r})\n"
        f"pathlib.Path({str(looks)!r}).touch()\n"
        "while not ended.exists(): time.sleep(0.001)\n"
        "seen.touch()\n"
        "while ended.exists(): time.sleep(0.001)\n"
        f"while not pathlib.Path({str(mark)!r}).exists(): time.sleep(0.001)\n"
    )

    await asyncio.wait_for(function.run_function(worker, (sys.executable, "-c", knows)), PATIENCE_S)

    assert mark.read_text() == "stopped"


@pytest.mark.parametrize(("long_life_s", "goes_on"), [(3600.0, False), (0.0, True)])
async def test_starts_count_anew_once_a_worker_has_lived_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long_life_s: float, goes_on: bool
) -> None:
    """The runtime ends when there was one start more than is made in a row."""
    monkeypatch.setattr(function, "LONG_LIFE_S", long_life_s)
    starts = tmp_path / "starts"
    starts.touch()
    worker = f"open({str(starts)!r}, 'a').write('x')"
    runtime = (
        "import pathlib, time\n"
        f"while len(pathlib.Path({str(starts)!r}).read_text()) <= {function.STARTS}:\n"
        "    time.sleep(0.01)\n"
    )

    commands = ((sys.executable, "-c", code) for code in (worker, runtime))
    await asyncio.wait_for(function.run_function(*commands), PATIENCE_S)

    assert (len(starts.read_text()) > function.STARTS) is goes_on


async def test_a_child_that_does_not_stop_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function, "STOP_TIMEOUT_S", 0.2)
    deaf = (
        sys.executable,
        "-c",
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(3600)",
    )

    assert await asyncio.wait_for(function.run_function(ENDS, deaf), PATIENCE_S)


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
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield asked
    finally:
        server.shutdown()
        server.server_close()


def test_the_first_batch_waits_for_the_engine_and_others_ask_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with engine(monkeypatch, 400, 400) as asked:
        handler.wait_until_up(60)
        assert len(asked) == 3

        handler.wait_until_up(60)

    assert len(asked) == 4


def test_an_engine_that_ended_and_was_begun_again_between_two_batches_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with engine(monkeypatch, 200, 400, 400) as asked:
        handler.wait_until_up(60)

        handler.wait_until_up(60)

    assert len(asked) == 4


def test_an_engine_that_has_ended_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ended = tmp_path / "ended"
    ended.touch()
    monkeypatch.setenv(function.ENDED, str(ended))
    with engine(monkeypatch) as asked:
        with pytest.raises(EngineUnavailable, match="has ended"):
            handler.wait_until_up(60)
        assert asked == []

        ended.unlink()
        handler.wait_until_up(60)

    assert len(asked) == 1


def test_an_environment_whose_engine_does_not_come_up_leaves_time_for_the_next_pool() -> None:
    """An Express execution ends after 300 s."""
    tries, pauses_s, next_pool_s = 4, 1 + 2 + 4, 125

    assert tries * handler.MOST_WAIT_S + pauses_s + next_pool_s <= 300


def test_an_engine_that_does_not_come_up_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler, "READY", "http://127.0.0.1:1/ready")

    with pytest.raises(EngineUnavailable):
        handler.wait_until_up(0.2)
