"""Files through the SDK."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from openai import BadRequestError, NotFoundError, OpenAI

LINES = b'{"custom_id": "a"}\n{"custom_id": "b"}\n'


def test_a_file_is_uploaded_read_and_deleted(client: OpenAI, tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(LINES)

    made = client.files.create(file=path, purpose="batch")

    assert made.id.startswith("file-")
    assert (made.object, made.purpose, made.filename) == ("file", "batch", "lines.jsonl")
    assert made.bytes == len(LINES)
    assert made.status in ("uploaded", "processed")
    assert abs(made.created_at - time.time()) < 60
    assert made.expires_at is not None
    assert made.expires_at - made.created_at == 30 * 86_400
    assert client.files.retrieve(made.id) == made
    assert client.files.content(made.id).content == LINES
    gone = client.files.delete(made.id)
    assert (gone.id, gone.object, gone.deleted) == (made.id, "file", True)
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(NotFoundError):
            call(made.id)


def test_a_file_lives_as_long_as_it_is_told(client: OpenAI) -> None:
    made = client.files.create(
        file=("short.jsonl", LINES),
        purpose="batch",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )

    assert made.expires_at is not None
    assert made.expires_at - made.created_at == 3600
    with pytest.raises(BadRequestError) as refused:
        client.files.create(
            file=("short.jsonl", LINES),
            purpose="batch",
            expires_after={"anchor": "created_at", "seconds": 60},
        )
    assert "expires_after" in (refused.value.param or "")


def test_a_purpose_that_is_not_served_is_refused(client: OpenAI) -> None:
    with pytest.raises(BadRequestError) as refused:
        client.files.create(file=("x.jsonl", LINES), purpose="fine-tune")

    assert refused.value.param == "purpose"


def test_the_list_is_read_page_by_page(client: OpenAI) -> None:
    made = [client.files.create(file=(f"{n}.jsonl", LINES), purpose="batch").id for n in range(3)]

    newest = [file.id for file in client.files.list(limit=2, order="desc")]
    oldest = [file.id for file in client.files.list(limit=2, order="asc", purpose="batch")]

    assert newest[:3] == made[::-1]
    assert oldest == newest[::-1] or set(made) <= set(oldest)
    page = client.files.list(limit=2, order="desc")
    assert page.has_more
    assert len(page.data) == 2


def test_a_file_may_be_uploaded_in_parts(client: OpenAI) -> None:
    upload = client.uploads.upload_file_chunked(
        file=LINES * 1000, filename="parts.jsonl", bytes=len(LINES) * 1000,
        mime_type="application/jsonl", purpose="batch", part_size=10_000,
    )  # fmt: skip

    assert upload.status == "completed"
    assert upload.file is not None
    assert client.files.content(upload.file.id).content == LINES * 1000
