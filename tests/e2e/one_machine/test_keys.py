"""Who is let in by a real server: from the key of its first start to the one just revoked."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.one_machine.running import SYNAPSE, Server, serve_command
from tests.patience import PATIENCE_S

KEY = re.compile(r"sk-syn-\w{55}")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("keys") / "data", "echo", auth="on")
    server.start()
    yield server
    server.close()


def pasted(server: Server) -> str:
    """The commands that the server printed last to be tried."""
    printed = server.log.read_text()
    return printed[printed.rindex("Try it:") :].removeprefix("Try it:").split("Ctrl-C")[0]


def synapse(server: Server, *arguments: str) -> str:
    command = [str(SYNAPSE), *arguments, "--data-dir", str(server.data_dir)]
    ran = subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE_S)
    return ran.stdout.strip()


def status(server: Server, key: str, path: str = "/v1/models") -> int:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.get(f"{server.url}{path}", headers=headers).status_code


def test_what_the_first_start_prints_gets_an_answer_and_is_printed_once(server: Server) -> None:
    [key] = set(KEY.findall(server.log.read_text()))
    run = ["bash", "-euo", "pipefail", "-c", pasted(server)]

    ran = subprocess.run(run, capture_output=True, text=True, timeout=PATIENCE_S, check=True)

    job, answer = ran.stdout.splitlines()
    assert (json.loads(answer)["jobId"], json.loads(answer)["status"]) == (job, "COMPLETED")
    assert status(server, key, "/metrics") == 200
    assert httpx.get(f"{server.url}/v1/models").status_code == 401

    server.stop()
    printed_first = len(server.log.read_text())
    server.start()
    assert not KEY.search(server.log.read_text()[printed_first:])
    assert "synapse keys create NAME --data-dir" in server.log.read_text()[printed_first:]
    assert status(server, key) == 200
    for file in server.data_dir.rglob("*"):
        if file.is_file():
            assert key[19:].encode() not in file.read_bytes(), file


def test_what_the_command_does_beside_a_running_server_counts_at_once(server: Server) -> None:
    key = server.new_key()
    assert status(server, key) == 200
    assert status(server, key, "/metrics") == 403

    rotated = synapse(server, "keys", "rotate", key[7:19], "--grace", "0s")
    assert (status(server, key), status(server, rotated)) == (401, 200)

    synapse(server, "keys", "revoke", key[7:19])
    assert status(server, rotated) == 401
    assert "login refused: revoked key" in server.log.read_text()
    assert rotated[19:] not in server.log.read_text()


def test_strangers_are_told_of_health_nothing_but_a_word(server: Server) -> None:
    def health(credential: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {credential}"} if credential else {}
        return httpx.get(f"{server.url}/health", headers=headers)

    for stranger in ("", "sk-syn-nothing"):
        assert (health(stranger).status_code, set(health(stranger).json())) == (200, {"status"})
    assert [each["model"] for each in health(server.new_key()).json()["workers"]] == ["echo"]


def test_without_keys_it_does_not_start_where_others_reach_it(tmp_path: Path) -> None:
    command = serve_command(tmp_path / "data", 0, "echo", "--host", "0.0.0.0")

    ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    assert ran.returncode == 1
    [line] = ran.stderr.splitlines()
    assert "SYNAPSE_AUTH=off" in line
