"""`make audit` with the real pip-audit, against a service of our own on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import audit_locks

pytestmark = pytest.mark.skipif(
    not audit_locks.PIP_AUDIT.exists(), reason="`make check` makes the tools' environment"
)

VULNERABLE = ("jinja2", "3.1.2")
LOCK = "# a lock\njinja2==3.1.2 \\\n    --hash=sha256:00\nidna==3.10\nuvicorn[standard]==0.30.0\n"
FOUND = {
    "vulns": [
        {
            "id": "PYSEC-2099-1",
            "aliases": ["CVE-2099-1"],
            "summary": "made up",
            "affected": [
                {
                    "package": {"name": "jinja2", "ecosystem": "PyPI"},
                    "ranges": [{"type": "ECOSYSTEM", "events": [{"fixed": "3.1.6"}]}],
                }
            ],
        }
    ]
}


class Service(ThreadingHTTPServer):
    """Speaks as OSV does: it knows of one vulnerable version."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.asked: list[tuple[str, str]] = []
        self.is_broken = False


class Answers(BaseHTTPRequestHandler):
    """Its answers."""

    server: Service

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        pin = (query["package"]["name"], query["version"])
        self.server.asked.append(pin)
        is_broken = self.server.is_broken
        self.send_response(HTTPStatus.BAD_GATEWAY if is_broken else HTTPStatus.OK)
        self.end_headers()
        self.wfile.write(json.dumps(FOUND if pin == VULNERABLE else {}).encode())

    def log_message(self, *arguments: Any) -> None:
        """Nothing is to be told."""


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    with Service() as service:
        thread = threading.Thread(target=service.serve_forever)
        thread.start()
        monkeypatch.setenv("PIP_AUDIT_VULNERABILITY_SERVICE", "osv")
        monkeypatch.setenv("PIP_AUDIT_OSV_URL", f"http://127.0.0.1:{service.server_port}/")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield service
        service.shutdown()
        thread.join()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "audit.toml").write_text("")
    (tmp_path / "requirements" / "app.txt").write_text(LOCK)
    return tmp_path


def test_a_pin_that_is_known_to_be_vulnerable_fails_the_check(
    service: Service, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit_locks.main([], root) == 1

    told = capsys.readouterr().err
    assert "jinja2 3.1.2: CVE-2099-1, PYSEC-2099-1; mended in 3.1.6" in told
    assert set(service.asked) == {VULNERABLE, ("idna", "3.10"), ("uvicorn", "0.30.0")}


def test_the_version_in_which_it_is_mended_passes(
    service: Service, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "requirements" / "app.txt").write_text(LOCK.replace("3.1.2", "3.1.6"))

    assert audit_locks.main(["--strict"], root) == 0

    assert "3 of 3 packages looked up, no vulnerability known" in capsys.readouterr().out


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("how", ["broken", "away", "no index"])
def test_where_nobody_answers_it_says_what_is_not_known_and_what_to_do(
    service: Service,
    root: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    strict: bool,
) -> None:
    service.is_broken = how == "broken"
    if how == "away":
        monkeypatch.setenv("PIP_AUDIT_OSV_URL", "http://127.0.0.1:1/")
    if how == "no index":
        monkeypatch.setenv("PIP_AUDIT_VULNERABILITY_SERVICE", "pypi")
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")

    assert audit_locks.main(["--strict"] if strict else [], root) == int(strict)

    told = capsys.readouterr().out
    assert "NOT LOOKED UP" in told
    assert "3 packages" in told
    assert "`make audit`" in told
    assert len(told) < 600
