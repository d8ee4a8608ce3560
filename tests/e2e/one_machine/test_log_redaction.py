"""What a real server logs: ids and times, and never a prompt, a key, a password or a token."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.one_machine.running import FINAL, Server

SECRET = "xylophone-in-the-prompt"
TOKEN = f"eyJhbGciOiJSUzI1NiJ9.{SECRET}.c2lnbmF0dXJl"
KEY = re.compile(r"sk-syn-[0-9A-Za-z]{13,}")
"""More of a key than its id."""

ALL = "inference,batches,usage,admin"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("redaction") / "data", "echo", auth="on")
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="module")
def logs(server: Server) -> dict[str, str]:
    """All that was logged while secrets came in by every door, by file."""
    key = server.new_key("--scopes", ALL)
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {key}"}) as client:
        tell_secrets(client)
        for credential in (key[:-1] + "~", TOKEN, SECRET):
            headers = {"Authorization": f"Bearer {credential}"}
            assert client.get("/v1/models", headers=headers).status_code == 401
    server.stop()
    files = [server.log, *(path for path in server.data_dir.rglob("*.log"))]
    return {path.name: path.read_text(errors="replace") for path in files}


def tell_secrets(client: httpx.Client) -> None:
    job = {"model": "echo", "prompt": SECRET, "metadata": {"note": SECRET}}
    job_id = client.post("/async-infer", json=job).raise_for_status().json()["jobId"]
    while client.get(f"/results/{job_id}?wait=5").json()["status"] not in FINAL:
        pass
    client.post("/async-infer", json={**job, "priority": SECRET})
    client.post("/async-infer", content=f"{{{SECRET}")
    client.post("/async-infer", content=SECRET, headers={"content-encoding": SECRET})
    client.post("/v1/completions", json={"model": "echo", "prompt": SECRET})
    client.post("/v1/chat/completions", json={"model": SECRET, "messages": [{"role": SECRET}]})
    client.post("/api/auth/login", json={"username": SECRET, "password": SECRET})
    client.post("/api/webhooks", json={"url": f"https://{SECRET}.example.com/{SECRET}"})
    client.get(f"/results/{SECRET}", params={"wait": SECRET})
    client.get(f"/{SECRET}", headers={"cookie": SECRET, "user-agent": SECRET})
    files = {"file": (f"{SECRET}.jsonl", SECRET.encode())}
    client.post("/v1/files", data={"purpose": "batch"}, files=files).raise_for_status()


def test_what_was_told_is_in_no_log(logs: dict[str, str]) -> None:
    assert "server.log" in logs
    assert len(logs) > 1, "the worker has logs of its own"
    assert [name for name, text in logs.items() if SECRET in text] == []


def test_no_key_is_in_a_log_but_the_first_which_is_printed_once(
    server: Server, logs: dict[str, str]
) -> None:
    found = {key for text in logs.values() for key in KEY.findall(text)}

    assert len(found) == 1
    assert logs["server.log"].count(found.pop()) <= 2, "in what is printed at the first start"


def test_a_refusal_is_to_be_found_by_the_id_of_the_key(logs: dict[str, str]) -> None:
    assert "login refused" in logs["server.log"]
