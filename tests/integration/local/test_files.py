"""Files through a real server, with OpenAI's own client: large ones, broken ones, and kill -9."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import pytest
from openai import OpenAI

from synapse.adapters.local.database import Database
from synapse.domain.file import MAX_FILE_BYTES, FileId, NewFile, Purpose
from synapse_server.file_parts import FileParts
from tests.fakes import FakeClock
from tests.integration.local import file_server
from tests.patience import PATIENCE_S, wait_until

LARGE_BYTES = 100 * 1024 * 1024
HEAD = (
    b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n'
)
LINES = b"".join(b'{"custom_id":"%d"}\n' % number for number in range(1000))


@dataclass(frozen=True)
class Running:
    """A server of files, and its folder."""

    port: int
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def client(self) -> OpenAI:
        url = f"http://127.0.0.1:{self.port}/v1"
        return OpenAI(base_url=url, api_key="none", max_retries=0, timeout=PATIENCE_S)

    def blobs(self) -> list[Path]:
        """All files there are on disk, finished or not."""
        return [path for path in (self.folder / "files").rglob("*") if path.is_file()]

    def peak_bytes(self) -> int:
        """The most memory that the process has ever had."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        [peak_kb] = re.findall(r"VmHWM:\s+(\d+) kB", status)
        return int(peak_kb) * 1024

    def begin(self, more: bytes) -> socket.socket:
        """Begin an upload that announces more than it sends; returns its connection."""
        connection = socket.create_connection(("127.0.0.1", self.port))
        connection.sendall(
            b"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 50000000\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + HEAD + more
        )
        return connection


@contextmanager
def serving(folder: Path) -> Iterator[Running]:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, file_server.__file__, str(folder)]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield Running(int(process.stdout.readline()), folder, process)
        finally:
            process.kill()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with serving(tmp_path) as running:
        yield running


def test_openais_client_uploads_lists_reads_and_deletes(running: Running) -> None:
    client = running.client
    created = [client.files.create(file=(f"{n}.jsonl", LINES), purpose="batch") for n in range(3)]

    listed = [file.id for file in client.files.list(limit=2)]
    assert listed == [file.id for file in reversed(created)]
    assert client.files.retrieve(created[0].id) == created[0]
    assert client.files.content(created[0].id).read() == LINES
    assert client.files.delete(created[0].id).deleted

    with pytest.raises(openai.NotFoundError) as gone:
        client.files.content(created[0].id)
    assert gone.value.code == "file_not_found"
    assert len(running.blobs()) == 2


def test_openais_client_uploads_in_parts(running: Running, tmp_path: Path) -> None:
    path = tmp_path / "large.jsonl"
    path.write_bytes(LINES * 100)

    upload = running.client.uploads.upload_file_chunked(
        file=path, mime_type="text/jsonl", purpose="batch", part_size=300_000
    )

    assert upload.status == "completed"
    assert upload.file is not None
    assert running.client.files.content(upload.file.id).read() == LINES * 100
    assert len(running.blobs()) == 1


def test_the_clients_errors_are_those_of_openai(running: Running) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        running.client.files.create(file=("a.png", b"1"), purpose="vision")
    assert refused.value.param == "purpose"
    with pytest.raises(openai.BadRequestError) as refused:
        running.client.files.create(
            file=("a", b"1"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 1}
        )
    assert refused.value.param == "expires_after.seconds"
    assert running.blobs() == []


def test_a_large_file_takes_no_memory(running: Running, tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(LARGE_BYTES)
    running.client.files.create(file=("small", b"1"), purpose="batch")
    before = running.peak_bytes()

    with path.open("rb") as file:
        created = running.client.files.create(file=file, purpose="batch")
    received = 0
    with running.client.files.with_streaming_response.content(created.id) as content:
        for chunk in content.iter_bytes(1024 * 1024):
            received += len(chunk)

    assert created.bytes == received == LARGE_BYTES
    assert running.peak_bytes() - before < 32 * 1024 * 1024


def test_a_file_above_the_limit_is_refused_and_leaves_nothing(running: Running) -> None:
    def endless() -> Iterator[bytes]:
        yield HEAD
        while True:
            yield bytes(1024 * 1024)

    url = f"http://127.0.0.1:{running.port}/v1/files"
    with socket.create_connection(("127.0.0.1", running.port)) as connection:
        length = MAX_FILE_BYTES + 1_000_000
        connection.sendall(
            b"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % length
            + b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        )
        told = connection.recv(10_000)
    assert told.startswith(b"HTTP/1.1 413")

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    try:
        refused = httpx.post(url, content=endless(), headers=headers, timeout=PATIENCE_S)
    except httpx.WriteError:
        # The server has read what it takes and more; it may close on a client that goes on.
        pass
    else:
        assert refused.status_code == 413
        assert refused.json()["error"]["code"] == "payload_too_large"
    wait_until(lambda: running.blobs() == [])


def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind(running: Running) -> None:
    with running.begin(bytes(5_000_000)):
        wait_until(lambda: len(running.blobs()) == 1)

    wait_until(lambda: running.blobs() == [])
    assert list(running.client.files.list()) == []


def test_what_kill_9_leaves_is_gone_after_the_next_start(tmp_path: Path) -> None:
    with serving(tmp_path) as running:
        kept = running.client.files.create(file=("kept", LINES), purpose="batch")
        with running.begin(bytes(5_000_000)):
            wait_until(lambda: len(running.blobs()) == 2)
            running.process.kill()
            running.process.wait()
        assert len(running.blobs()) == 2

    with serving(tmp_path) as running:
        assert [file.id for file in running.client.files.list()] == [kept.id]
        assert running.client.files.content(kept.id).read() == LINES
        assert len(running.blobs()) == 1


async def pieces() -> AsyncIterator[bytes]:
    yield LINES


async def test_what_is_past_its_time_goes_with_its_bytes(tmp_path: Path) -> None:
    clock = FakeClock(time.time())
    database = Database.open(tmp_path / "jobs.db")
    parts = FileParts(database, tmp_path / "files", clock)
    for seconds in (3600, 7200):
        new = NewFile("in.jsonl", Purpose.BATCH, seconds)
        await parts.files.write(FileId(f"file-{seconds}"), new, pieces())
    upload = (await parts.uploads.begin(new, "text/jsonl", len(LINES))).upload
    await parts.uploads.add_part(upload.id, pieces())
    # A crash between the bytes and the record, long ago.
    await parts.blobs.put("files/orphan", b"x")
    [orphan] = [p for p in (tmp_path / "files").glob("??/*") if p.stat().st_size == 1]
    os.utime(orphan, (0, 0))

    assert await parts.purge() == 0
    assert not orphan.exists()
    clock.advance(3700)
    assert await parts.purge() == 1
    clock.advance(3600)
    assert await parts.purge() == 2

    assert [p for p in (tmp_path / "files").rglob("*") if p.is_file()] == []
    await database.close()
