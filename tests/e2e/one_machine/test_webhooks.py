"""Webhooks of a real server: signed, tried again, and not lost with the process."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.hooks import Hooks, receiving
from tests.e2e.one_machine.fleets import until
from tests.e2e.one_machine.running import Server, finished
from tests.patience import PATIENCE_S

API = "/api/webhooks"


@pytest.fixture(scope="module")
def hooks() -> Iterator[Hooks]:
    with receiving() as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, hooks: Hooks) -> Iterator[Server]:
    """One for all; each test has a path of its own among the hooks."""
    folder = tmp_path_factory.mktemp("webhooks") / "data"
    server = Server(folder, "echo", "--webhook-allow", hooks.place)
    server.start()
    yield server
    server.close()


def submit(client: httpx.Client, server: Server, **fields: object) -> str:
    answer = client.post(f"{server.url}/async-infer", json={"model": "echo", **fields})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["jobId"])


def secret_of(client: httpx.Client, server: Server, webhook: str = "callbacks") -> str:
    return str(client.post(f"{server.url}{API}/{webhook}/rotate").json()["secret"])


def deliveries(client: httpx.Client, server: Server, job: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = client.get(
        f"{server.url}{API}/deliveries", params={"job": job}
    ).json()["data"]
    return found


def test_the_end_of_a_job_comes_signed_and_soon(
    client: httpx.Client, server: Server, hooks: Hooks
) -> None:
    secret = secret_of(client, server)
    job = submit(client, server, prompt="Hi", callback_url=hooks.url("/done"))
    finished(client, server.url, job)
    ended = time.monotonic()

    (hook,) = hooks.at("/done")

    assert time.monotonic() - ended < 30
    event = hook.event(secret)
    assert (event["type"], event["data"]) == (
        "job.completed",
        {"id": job, "object": "job", "status": "completed"},
    )


def cancelled(client: httpx.Client, server: Server) -> str:
    """A job that was cancelled; on a busy machine some may be done before."""
    while True:
        job = submit(client, server, prompt="too late")
        if client.delete(f"{server.url}/results/{job}").json().get("status") == "CANCELLED":
            return job


def test_a_webhook_is_told_of_jobs_and_of_batches(
    client: httpx.Client, server: Server, hooks: Hooks
) -> None:
    events = ["job.cancelled", "batch.completed"]
    body = {"url": hooks.url("/hook"), "events": events}
    secret = client.post(f"{server.url}{API}", json=body).json()["secret"]

    late = cancelled(client, server)
    line = {"model": "echo", "prompt": "Hi"}
    request = {"custom_id": "1", "method": "POST", "url": "/v1/completions", "body": line}
    file = client.post(
        f"{server.url}/v1/files",
        data={"purpose": "batch"},
        files={"file": ("in.jsonl", json.dumps(request))},
    ).json()
    batch = client.post(
        f"{server.url}/v1/batches",
        json={
            "input_file_id": file["id"],
            "endpoint": "/v1/completions",
            "completion_window": "24h",
        },
    ).json()

    came = [hook.event(secret) for hook in hooks.at("/hook", 2)]
    assert {(event["type"], event["data"]["id"]) for event in came} == {  # type: ignore[index]
        ("job.cancelled", late),
        ("batch.completed", batch["id"]),
    }


def test_a_receiver_that_fails_gets_it_again_also_after_kill_9(
    client: httpx.Client, server: Server, hooks: Hooks
) -> None:
    job = submit(client, server, prompt="Hi", callback_url=hooks.url("/flaky", 503))
    first = hooks.at("/flaky")[0]
    # What the server was told as it was killed, it need not know.
    until(lambda: deliveries(client, server, job)[0]["attempts"] == 1)

    server.kill()
    server.start()

    again = hooks.at("/flaky", 2)[1]
    assert again.headers["webhook-id"] == first.headers["webhook-id"]
    assert again.body == first.body
    deadline = time.monotonic() + PATIENCE_S
    while (seen := deliveries(client, server, job))[0]["status"] != "delivered":
        assert time.monotonic() < deadline, seen
        time.sleep(0.1)
    assert (seen[0]["attempts"], seen[0]["last_status_code"]) == (2, 200)


def test_jobs_that_end_around_kill_9_are_all_told_of(
    client: httpx.Client, server: Server, hooks: Hooks
) -> None:
    url = hooks.url("/all")
    jobs = [submit(client, server, prompt=f"{n}", callback_url=url) for n in range(60)]

    server.kill()
    server.start()
    for job in jobs:
        finished(client, server.url, job)

    deadline = time.monotonic() + PATIENCE_S
    while {json.loads(hook.body)["data"]["id"] for hook in hooks.at("/all", 0)} != set(jobs):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    came = hooks.at("/all")
    by_job = {json.loads(hook.body)["data"]["id"]: hook.headers["webhook-id"] for hook in came}
    assert len({hook.headers["webhook-id"] for hook in came}) == len(by_job) == len(jobs)


def test_nothing_goes_to_this_machine_unless_it_is_allowed(
    client: httpx.Client, server: Server, hooks: Hooks
) -> None:
    with receiving() as other:
        refused = client.post(
            f"{server.url}/async-infer",
            json={"model": "echo", "prompt": "Hi", "callback_url": other.url("/x")},
        )

    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "callback_url"
    assert other.came == []


def test_no_secret_is_in_the_log(client: httpx.Client, server: Server, hooks: Hooks) -> None:
    secret = secret_of(client, server)
    job = submit(client, server, prompt="Hi", callback_url=hooks.url("/gone?token=hush", 410))
    hooks.at("/gone?token=hush")

    until(lambda: deliveries(client, server, job)[0]["status"] == "given_up")
    until(lambda: "webhook given up" in server.log.read_text())
    log = server.log.read_text()
    assert secret not in log and "hush" not in log
