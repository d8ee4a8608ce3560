"""Reading items by keys that callers had a hand in."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from synapse.adapters.aws.items import read_item

TABLE = "a-table"


class Table:
    """Has an item under every key, and refuses those that DynamoDB does."""

    def get_item(self, Key: dict[str, dict[str, str]], **_: Any) -> dict[str, Any]:
        for name, most in (("pk", 2048), ("sk", 1024)):
            if name in Key and len(Key[name]["S"].encode()) > most:
                refusal: Any = {"Error": {"Code": "ValidationException", "Message": "too long"}}
                raise ClientError(refusal, "GetItem")
        return {"Item": Key}


@pytest.mark.parametrize(
    ("pk", "sk", "is_there"),
    [
        ("x" * 2048, "y" * 1024, True),
        ("x" * 2049, "y", False),
        ("x", "y" * 1025, False),
        ("ö" * 1025, "y", False),
    ],
)
async def test_nothing_is_there_under_a_key_that_is_too_long(
    pk: str, sk: str, is_there: bool
) -> None:
    client: Any = Table()
    found = await read_item(client, TABLE, {"pk": pk, "sk": sk})
    assert found == ({"pk": pk, "sk": sk} if is_there else None)
