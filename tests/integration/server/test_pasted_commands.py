"""The first commands that a newcomer pastes: they show an answer, or the error as it came."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from readme_commands import block
from synapse.domain.pool import Pool
from synapse_server.banner import ready_text
from synapse_server.config import FleetConfig, LocalPool, ServerConfig
from tests.factories import a_model

ROOT = Path(__file__).resolve().parents[3]
URL = "http://127.0.0.1:8080"
REFUSED = '{"error":{"message":"the API key is not valid","type":"authentication_error"}}'


def of_the_readme() -> str:
    return block((ROOT / "README.md").read_text(), "curl")


def of_the_banner() -> str:
    fleet = FleetConfig((LocalPool(Pool("local", "cpu")),))
    config = ServerConfig(
        host="127.0.0.1",
        port=8080,
        data_dir=Path(".synapse"),
        models=("echo",),
        worker_venv=Path(".venv-worker"),
        fleet=fleet,
    )
    return ready_text(config, [a_model("echo")], ".venv/bin/synapse")


def pasted(text: str, url: str) -> tuple[str, str]:
    """What the commands that send something write to standard output and to standard error."""
    lines = [line.strip() for line in text.replace(URL, url).splitlines() if "curl" in line]
    script = "\n".join(["OPENAI_API_KEY=sk-syn-one", *lines])
    done = subprocess.run(
        ["bash", "-uc", script], capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout, done.stderr


@contextmanager
def server(status: int, accepted: str) -> Iterator[tuple[str, list[str]]]:
    """Answers every POST so, and says what was asked for otherwise."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self._answer(status, accepted)

        def do_GET(self) -> None:
            asked.append(self.path)
            self._answer(200, '{"status":"COMPLETED"}')

        def _answer(self, status: int, text: str) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    http = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}", asked
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


COMMANDS = pytest.mark.parametrize(
    "text", [of_the_readme(), of_the_banner()], ids=["README", "banner"]
)


@COMMANDS
def test_the_result_of_the_job_is_shown(text: str) -> None:
    with server(202, '{"jobId":"01-ab","status":"QUEUED"}') as (url, asked):
        shown, _ = pasted(text, url)

    assert shown == '01-ab\n{"status":"COMPLETED"}'
    assert asked == ["/results/01-ab?wait=30"]


@COMMANDS
def test_an_error_is_shown_as_it_came_and_no_job_is_asked_for(text: str) -> None:
    with server(401, REFUSED) as (url, asked):
        shown, _ = pasted(text, url)

    assert shown == f"{REFUSED}\n"
    assert asked == []


@COMMANDS
def test_where_nobody_listens_curl_says_so(text: str) -> None:
    with server(202, "") as (url, _):
        pass

    _, told = pasted(text, url)

    assert "curl: (7) " in told
