"""Files in the deployed application: bytes that are no text, more than a function answers with."""

from __future__ import annotations

from pathlib import Path

import httpx
from openai import OpenAI

from tests.e2e.stack import Stack
from tests.patience import PATIENCE_S

ANY_BYTES = bytes(range(256)) * 4_000


def test_bytes_that_are_no_text_come_back_as_they_were_sent(stack: Stack) -> None:
    with OpenAI(base_url=f"{stack.url}/v1", api_key=stack.api_key, max_retries=0) as client:
        file = client.files.create(file=("any", ANY_BYTES), purpose="batch")

        assert file.bytes == len(ANY_BYTES)
        assert client.files.content(file.id).read() == ANY_BYTES


def test_what_is_too_large_to_answer_with_is_read_from_the_bucket(
    stack: Stack, tmp_path: Path
) -> None:
    path = tmp_path / "large.jsonl"
    path.write_bytes(ANY_BYTES * 9)
    with OpenAI(base_url=f"{stack.url}/v1", api_key=stack.api_key, max_retries=0) as client:
        upload = client.uploads.upload_file_chunked(
            file=path, mime_type="application/jsonl", purpose="batch", part_size=4_000_000
        )
    assert upload.file is not None
    assert upload.file.bytes == len(ANY_BYTES) * 9

    headers = {"Authorization": f"Bearer {stack.api_key}"}
    told = httpx.get(
        f"{stack.url}/v1/files/{upload.file.id}/content", headers=headers, timeout=PATIENCE_S
    )

    assert told.status_code == 302
    assert httpx.get(told.headers["location"], timeout=PATIENCE_S).content == ANY_BYTES * 9
    assert httpx.get(told.headers["location"].split("?")[0]).status_code in (400, 403)
