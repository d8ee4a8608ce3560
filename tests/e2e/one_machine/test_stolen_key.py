"""A key that somebody found is revoked with its jobs: what it has left behind is not run."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from synapse.domain.api_key import key_id_of
from tests.e2e.one_machine.fleets import CALM, EchoPool, FleetServer
from tests.e2e.one_machine.running import SYNAPSE, finished, submit
from tests.e2e.one_machine.test_limits import batch_of, begun, client_of
from tests.patience import PATIENCE_S

SLOW = EchoPool("slow", price=0.0, delay_ms=250, slots=1)
LEFT = 240
LINES = 400
"""Of either more than are run before anybody can revoke the key."""


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetServer]:
    server = FleetServer(tmp_path_factory.mktemp("stolen"), SLOW, times=CALM, auth="on")
    server.start()
    yield server
    server.close()


def test_what_a_stolen_key_has_begun_ends_with_it_and_nothing_else_does(
    server: FleetServer,
) -> None:
    with client_of(server) as thief, client_of(server) as owner:
        left = [submit(thief, server.url, f"stolen {number}") for number in range(LEFT)]
        batch_id = begun(thief, LINES)
        ours = [submit(owner, server.url, f"ours {number}") for number in range(3)]

        key_id = str(key_id_of(thief.headers["Authorization"].removeprefix("Bearer ")))
        place = ("--data-dir", str(server.data_dir))
        revoke = [str(SYNAPSE), "keys", "revoke", key_id, "--cancel-jobs", *place]
        subprocess.run(revoke, check=True, capture_output=True, timeout=PATIENCE_S)

        assert thief.get("/v1/models").status_code == 401
        ends = [finished(owner, server.url, job_id) for job_id in left]
        assert {finished(owner, server.url, job_id)["status"] for job_id in ours} == {"COMPLETED"}
        counts = Counter(end["status"] for end in ends)
        assert set(counts) <= {"COMPLETED", "FAILED"}
        assert counts["FAILED"] > LEFT / 4
        assert {e["error"]["code"] for e in ends if e["status"] == "FAILED"} == {"key_revoked"}
        deadline = time.monotonic() + PATIENCE_S
        while (batch := batch_of(owner, batch_id))["status"] != "cancelled":
            assert batch["status"] in ("validating", "in_progress", "cancelling")
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert batch["request_counts"]["completed"] < LINES / 2
