"""Models from S3: the emulator's."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from synapse_worker.cache import CacheConfig, ModelCache
from synapse_worker.cache.publishing import Edition, publish
from synapse_worker.errors import WorkerError
from tests.e2e.emulator import CREDENTIALS, Emulator

BUCKET = "synapse-models"
STORE = f"s3://{BUCKET}/some/prefix"
PART_BYTES = 1 << 20
WEIGHTS = random.Random(1).randbytes(4 * PART_BYTES)


@pytest.fixture(autouse=True)
def _bucket(aws: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where boto3 finds it without being told by us."""
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    for key, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": aws.url}.items():
        monkeypatch.setenv(key, value)
    aws.s3.create_bucket(Bucket=BUCKET)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "llm"
    (found / "1").mkdir(parents=True)
    (found / "1/weights, part 1+2.bin").write_bytes(WEIGHTS)
    (found / "config.pbtxt").write_text('name: "llm"\n')
    return found


async def test_a_model_goes_to_s3_and_comes_back_whole(folder: Path, tmp_path: Path) -> None:
    manifest = publish(folder, STORE, Edition("llm", part_bytes=PART_BYTES))

    found = await ModelCache(CacheConfig(STORE, tmp_path / "cache")).ensure("llm")

    assert found.name == manifest.version
    assert (found / "1/weights, part 1+2.bin").read_bytes() == WEIGHTS
    assert publish(folder, STORE, Edition("llm", part_bytes=PART_BYTES)) == manifest


async def test_what_is_not_in_s3_is_refused(aws: Emulator, folder: Path, tmp_path: Path) -> None:
    manifest = publish(folder, STORE, Edition("half", part_bytes=PART_BYTES))
    key = f"some/prefix/half/{manifest.version}/config.pbtxt"
    aws.s3.delete_object(Bucket=BUCKET, Key=key)
    cache = ModelCache(CacheConfig(STORE, tmp_path / "cache"))

    with pytest.raises(WorkerError, match="has no nothing"):
        await cache.ensure("nothing")
    with pytest.raises(WorkerError, match=r"config\.pbtxt"):
        await cache.ensure("half")


async def test_an_object_that_was_replaced_is_refused(
    aws: Emulator, folder: Path, tmp_path: Path
) -> None:
    manifest = publish(folder, STORE, Edition("other", part_bytes=PART_BYTES))
    key = f"some/prefix/other/{manifest.version}/config.pbtxt"
    aws.s3.put_object(Bucket=BUCKET, Key=key, Body=b'name: "evil"')

    with pytest.raises(WorkerError, match="SHA-256"):
        await ModelCache(CacheConfig(STORE, tmp_path / "cache")).ensure("other")


async def test_a_bucket_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="NoSuchBucket"):
        await ModelCache(CacheConfig("s3://no-such", tmp_path / "cache")).ensure("llm")
