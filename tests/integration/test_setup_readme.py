"""README.md's server and curl lines, run for real against a stand-in for Synapse."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import readme_commands
from readme_commands import ReadmeError, answers, run_server
from tests.patience import PATIENCE_S
from tests.ports import free_port

# Answers as Synapse does, as far as the README's lines go.
SERVER = """
import http.server, subprocess, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"status": "STATE"}')
    def log_message(self, *_):
        pass

LEAK
try:
    http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
except KeyboardInterrupt:
    print("stopped")
"""
LEAK = 'subprocess.Popen(["sleep", "600"], start_new_session=True)'


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readme_commands, "POLL_S", 0.05)


@pytest.fixture
def port() -> int:
    return free_port()


def readme(tmp_path: Path, port: int, *, state: str = "COMPLETED", leak: str = "") -> str:
    script = tmp_path / "server.py"
    script.write_text(SERVER.replace("STATE", state).replace("LEAK", leak))
    return (
        f"<!-- ci:run -->\n```sh\npython3 {script} {port}\n```\n"
        f"<!-- ci:curl -->\n```sh\ncurl -s http://127.0.0.1:{port}/\n```\n"
    )


def test_a_server_that_answers_and_stops_passes(tmp_path: Path, port: int) -> None:
    run_server(readme(tmp_path, port))

    assert not answers(f"http://127.0.0.1:{port}")


def test_an_answer_without_a_completed_job_fails(tmp_path: Path, port: int) -> None:
    with pytest.raises(ReadmeError, match="no COMPLETED"):
        run_server(readme(tmp_path, port, state="FAILED"))


def test_a_server_that_ends_at_once_fails(port: int) -> None:
    markdown = (
        "<!-- ci:run -->\n```sh\nexit 3\n```\n"
        f"<!-- ci:curl -->\n```sh\ncurl http://127.0.0.1:{port}\n```\n"
    )
    with pytest.raises(ReadmeError, match="status 3 before it answered"):
        run_server(markdown)


def test_a_process_that_outlives_ctrl_c_is_told_and_killed(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readme_commands, "STOP_TIMEOUT_S", 2)
    with pytest.raises(ReadmeError, match="left processes behind: sleep 600"):
        run_server(readme(tmp_path, port, leak=LEAK))


def test_a_port_that_is_taken_fails_before_anything_is_started(tmp_path: Path, port: int) -> None:
    markdown = readme(tmp_path, port)
    taken = subprocess.Popen(
        ["python3", str(tmp_path / "server.py"), str(port)],
        stdout=subprocess.DEVNULL,
    )
    try:
        assert readme_commands.wait_for(lambda: answers(f"http://127.0.0.1:{port}"), PATIENCE_S)
        with pytest.raises(ReadmeError, match="something answers"):
            run_server(markdown)
    finally:
        taken.kill()
        taken.wait()
