"""People log in with a password, and tokens of an identity provider are taken, on one machine."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.one_machine.running import SYNAPSE, Server
from tests.oidc_server import OidcServer
from tests.patience import PATIENCE_S
from tests.tokens import AUDIENCE, a_claim_set, signing_key

PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def issuer() -> Iterator[OidcServer]:
    with OidcServer(signing_key()) as server:
        yield server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, issuer: OidcServer) -> Iterator[Server]:
    options = ("--oidc-issuer", issuer.url, "--oidc-audience", AUDIENCE)
    server = Server(tmp_path_factory.mktemp("logins") / "data", "echo", *options, auth="on")
    server.start()
    yield server
    server.close()


def users(server: Server, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    command = [str(SYNAPSE), "users", *arguments, "--data-dir", str(server.data_dir)]
    return subprocess.run(
        command, input=typed, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


def log_in(server: Server, name: str, password: str = PASSWORD) -> httpx.Response:
    body = {"username": name, "password": password}
    return httpx.post(f"{server.url}/api/auth/login", json=body)


def models(server: Server, token: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.get(f"{server.url}/v1/models", headers=headers)


def a_user(server: Server, name: str, *more: str) -> str:
    """A user's token; the server runs while the user is made."""
    made = users(server, "add", name, *more, typed=PASSWORD + "\n")
    assert made.returncode == 0, made.stderr
    answer = log_in(server, name)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["access_token"])


def test_who_logs_in_may_use_the_routes_until_shut_out(server: Server) -> None:
    token = a_user(server, "ada")
    assert models(server, token).status_code == 200

    assert users(server, "disable", "ada").returncode == 0

    refused = models(server, token)
    assert refused.status_code == 401
    assert refused.json()["error"]["code"] == "invalid_api_key"
    assert log_in(server, "ada").status_code == 401

    assert users(server, "enable", "ada").returncode == 0
    assert models(server, token).status_code == 401
    again = log_in(server, "ada").json()["access_token"]
    assert models(server, again).status_code == 200


def test_another_password_ends_the_tokens_of_the_one_before(server: Server) -> None:
    token = a_user(server, "bob")

    assert users(server, "passwd", "bob", typed="another password\n").returncode == 0

    assert models(server, token).status_code == 401
    assert log_in(server, "bob").status_code == 401
    assert log_in(server, "bob", "another password").status_code == 200


def test_a_user_does_what_they_were_made_for_and_sees_their_tenant_only(server: Server) -> None:
    token = a_user(server, "carl", "--tenant", "acme", "--scopes", "inference")
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=PATIENCE_S) as client:
        job = client.post("/async-infer", json={"model": "echo", "prompt": "hello"}).json()["jobId"]
        assert client.get(f"/results/{job}?wait=20").json()["status"] == "COMPLETED"
        assert client.get("/v1/files").status_code == 403
    dora = a_user(server, "dora")
    other = httpx.get(f"{server.url}/results/{job}", headers={"Authorization": f"Bearer {dora}"})
    assert other.status_code == 404


def test_guessing_is_slowed_down(server: Server) -> None:
    statuses = [log_in(server, "eve", f"guess number {n}").status_code for n in range(7)]

    assert statuses == [401] * 5 + [429] * 2
    assert int(log_in(server, "eve").headers["retry-after"]) in range(1, 11)


def test_who_guesses_does_not_say_from_where(server: Server) -> None:
    a_user(server, "hedy")
    body = {"username": "hedy", "password": "wrong password"}
    statuses = [
        httpx.post(
            f"{server.url}/api/auth/login",
            json=body,
            headers={"X-Forwarded-For": f"203.0.113.{n}"},
        ).status_code
        for n in range(7)
    ]
    assert statuses == [401] * 5 + [429] * 2


def test_the_command_takes_no_password_that_will_not_do(server: Server) -> None:
    short = users(server, "add", "fred", typed="short\n")
    none = users(server, "add", "fred")
    twice = users(server, "add", "ada", typed=PASSWORD + "\n")

    assert (short.returncode, none.returncode, twice.returncode) == (1, 1, 1)
    assert "12 to 1024" in short.stderr
    assert "already" in twice.stderr
    listed = users(server, "list").stdout
    assert "ada" in listed
    assert "fred" not in listed
    assert "argon2" not in listed


def test_tokens_of_the_identity_provider_are_taken(server: Server, issuer: OidcServer) -> None:
    now = int(time.time())
    says = {"iss": issuer.url, "iat": now, "exp": now + 60}

    good = signing_key().token(a_claim_set(**says))
    another_audience = signing_key().token(a_claim_set(**says, aud="another"))
    stranger = signing_key(key_id="stranger").token(a_claim_set(**says))

    assert models(server, good).status_code == 200
    assert models(server, another_audience).status_code == 401
    assert models(server, stranger).status_code == 401


def test_no_secret_is_in_the_log_and_the_key_is_its_owner_s_only(server: Server) -> None:
    token = a_user(server, "gus")
    log_in(server, "gus", "a secret that is wrong")

    log = server.log.read_text()
    assert not any(text in log for text in (token, PASSWORD, "a secret that is wrong"))
    for name in ("login-key.pem", "access.db"):
        assert (server.data_dir / name).stat().st_mode & 0o077 == 0


def test_tokens_outlive_a_restart(tmp_path: Path) -> None:
    server = Server(tmp_path / "data", "echo", auth="on")
    server.start()
    try:
        token = a_user(server, "ada")
        server.stop()
        server.start()
        assert models(server, token).status_code == 200
    finally:
        server.close()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--oidc-issuer", "http://id.example"), "SYNAPSE_OIDC_ISSUER"),
        (("--oidc-issuer", "https://id.example"), "SYNAPSE_OIDC_AUDIENCE"),
    ],
)
def test_an_issuer_that_cannot_be_trusted_stops_the_start(
    tmp_path: Path, options: tuple[str, ...], named: str
) -> None:
    command: list[Any] = [SYNAPSE, "serve", "--data-dir", tmp_path, "--models", "echo", *options]

    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    assert ended.returncode == 1
    assert named in ended.stderr
