"""DynamoFileBatchStore when no answer comes."""

from __future__ import annotations

import pytest

from synapse.adapters.aws.file_batches import DynamoFileBatchStore
from synapse.domain.errors import Unavailable
from tests.aws import Aws
from tests.factories import a_file_batch
from tests.integration.aws.faults import client_error, failing, unanswered


async def test_a_batch_whose_creation_was_not_answered_is_there_and_told_so(cloud: Aws) -> None:
    store, batch = DynamoFileBatchStore(cloud.dynamodb, cloud.files_table), a_file_batch()

    with unanswered(cloud.dynamodb, "TransactWriteItems"):
        await store.create(batch)

    assert await store.open() == [batch]


async def test_a_batch_that_could_not_be_created_is_not_there(cloud: Aws) -> None:
    store, batch = DynamoFileBatchStore(cloud.dynamodb, cloud.files_table), a_file_batch()

    with (
        failing(cloud.dynamodb, client_error("ThrottlingException", "TransactWriteItems")),
        pytest.raises(Unavailable),
    ):
        await store.create(batch)

    assert await store.open() == []
