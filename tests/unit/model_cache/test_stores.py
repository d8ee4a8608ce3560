"""Which store an address means, and how long to wait for one."""

from __future__ import annotations

import sys

import pytest

from synapse_worker.cache.config import TransferConfig
from synapse_worker.cache.folder_store import FolderStore
from synapse_worker.cache.http_store import HttpStore
from synapse_worker.cache.s3_store import S3Store, split_address
from synapse_worker.cache.stores import open_store
from synapse_worker.errors import WorkerError


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("s3://bucket/models", S3Store),
        ("https://models.example/all", HttpStore),
        ("/srv/models", FolderStore),
        ("file:///srv/models", FolderStore),
    ],
)
def test_the_address_says_what_kind_of_store_it_is(source: str, kind: type) -> None:
    assert isinstance(open_store(source, TransferConfig()), kind)


def test_an_address_of_another_kind_is_refused() -> None:
    with pytest.raises(WorkerError, match="gs://"):
        open_store("gs://bucket", TransferConfig())


def test_without_boto3_a_store_in_s3_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)

    with pytest.raises(WorkerError, match="pip install boto3"):
        open_store("s3://bucket", TransferConfig())


@pytest.mark.parametrize(
    ("address", "found"),
    [("b", ("b", "")), ("b/", ("b", "")), ("b/p", ("b", "p/")), ("b/p/q/", ("b", "p/q/"))],
)
def test_an_address_in_s3_has_a_bucket_and_perhaps_a_prefix(
    address: str, found: tuple[str, str]
) -> None:
    assert split_address(address) == found


def test_an_address_in_s3_without_a_bucket_is_refused() -> None:
    with pytest.raises(WorkerError, match="no bucket"):
        split_address("/prefix")


def test_waits_double_up_to_a_ceiling_with_full_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TransferConfig(base_delay_s=1, max_delay_s=5)

    monkeypatch.setattr("random.random", lambda: 1.0)
    assert [config.delay_s(failures) for failures in (1, 2, 3, 4, 90)] == [1, 2, 4, 5, 5]
    monkeypatch.setattr("random.random", lambda: 0.5)
    assert config.delay_s(2) == 1
