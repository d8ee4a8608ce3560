"""DynamoDB's typed attributes, reading and putting items, transactions, expressions of updates."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from synapse.adapters.aws.calls import call, error_code

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef


CONDITION_FAILED = "ConditionalCheckFailedException"

REFUSED = "ConditionalCheckFailed"
"""What comes of a write of a transaction whose condition does not hold."""

MAX_KEY_BYTES = {"pk": 2048, "sk": 1024}
"""DynamoDB refuses longer ones. Callers' ids may be longer: they come in a request's path."""


def attribute(value: object) -> AttributeValueTypeDef:
    """The typed attribute of a text or a number.

    Numbers are written as Python spells them and come back equal: DynamoDB keeps 38 digits.
    """
    if isinstance(value, str):
        return {"S": value}
    if isinstance(value, int | float):
        return {"N": repr(value)}
    raise TypeError(f"no attribute for a {type(value).__name__}")


def attributes(values: Mapping[str, object]) -> dict[str, AttributeValueTypeDef]:
    """The typed attributes of an item."""
    return {key: attribute(value) for key, value in values.items()}


def plain(item: Mapping[str, Any]) -> dict[str, Any]:
    """The values of an item; numbers are ints where they are whole."""
    return {key: _plain(value) for key, value in item.items()}


async def read_item(
    client: DynamoDBClient, table: str, key: Mapping[str, object]
) -> dict[str, Any] | None:
    """The item under `key` as all writes so far have left it, or None.

    Raises:
        Unavailable: DynamoDB cannot be reached.
    """
    if any(len(str(value).encode()) > MAX_KEY_BYTES[name] for name, value in key.items()):
        return None
    answer = await call(client.get_item, TableName=table, Key=attributes(key), ConsistentRead=True)
    item = answer.get("Item")
    return plain(item) if item else None


async def query_items(client: DynamoDBClient, table: str, **query: Any) -> AsyncIterator[Any]:
    """The items of a query as all writes so far have left them; a page ends at a megabyte.

    Raises:
        Unavailable: DynamoDB cannot be reached.
    """
    while True:
        page = await call(client.query, TableName=table, ConsistentRead=True, **query)
        for item in page["Items"]:
            yield item
        if "LastEvaluatedKey" not in page:
            return
        query["ExclusiveStartKey"] = page["LastEvaluatedKey"]


async def put_latest(
    client: DynamoDBClient, table: str, item: Mapping[str, object], at: str
) -> None:
    """Put an item, unless one is there whose attribute `at` is a later time.

    Raises:
        Unavailable: DynamoDB cannot be reached.
    """
    try:
        await call(
            client.put_item,
            TableName=table,
            Item=attributes(item),
            ConditionExpression=f"attribute_not_exists(pk) OR {at} <= :at",
            ExpressionAttributeValues=attributes({":at": item[at]}),
        )
    except ClientError as error:
        if error_code(error) != CONDITION_FAILED:
            raise


async def transact(client: DynamoDBClient, writes: Sequence[Any]) -> Sequence[str]:
    """Do all of the writes or none; if none, what came of each, "None" where it was not at fault.

    boto3 gives each transaction a token: its own repetition of one whose answer was lost is no
    second one.

    Raises:
        Unavailable: DynamoDB cannot be reached.
    """
    try:
        await call(client.transact_write_items, TransactItems=writes)
    except ClientError as error:
        if error_code(error) != "TransactionCanceledException":
            raise
        response: Any = error.response
        return [reason.get("Code", "None") for reason in response["CancellationReasons"]]
    return ()


def _plain(value: Mapping[str, str]) -> str | int | float:
    [(kind, content)] = value.items()
    if kind != "N":
        return content
    return int(content) if content.lstrip("-").isdigit() else float(content)


class Update:
    """The expressions of one UpdateItem. Every name is aliased: many are reserved words."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._values: dict[str, AttributeValueTypeDef] = {}
        self._clauses: dict[str, list[str]] = {"SET": [], "REMOVE": []}
        self._conditions: list[str] = []

    def name(self, attribute_name: str) -> str:
        """The alias of an attribute's name."""
        alias = f"#{attribute_name}"
        self._names[alias] = attribute_name
        return alias

    def value(self, value: object) -> str:
        """A placeholder for a value."""
        placeholder = f":v{len(self._values)}"
        self._values[placeholder] = attribute(value)
        return placeholder

    def put(self, values: Mapping[str, object]) -> Update:
        """Set attributes; those whose value is None are removed."""
        for key, value in values.items():
            if value is None:
                self._clauses["REMOVE"].append(self.name(key))
            else:
                self._clauses["SET"].append(f"{self.name(key)} = {self.value(value)}")
        return self

    def put_expression(self, key: str, expression: str) -> Update:
        """Set an attribute to the value of an expression."""
        self._clauses["SET"].append(f"{self.name(key)} = {expression}")
        return self

    def only_if(self, condition: str) -> Update:
        """Add a condition; all must hold."""
        self._conditions.append(condition)
        return self

    def only_if_equal(self, values: Mapping[str, object]) -> Update:
        """Add the condition that attributes have these values; None means that there is none."""
        for key, value in values.items():
            name = self.name(key)
            missing = value is None
            self.only_if(
                f"attribute_not_exists({name})" if missing else f"{name} = {self.value(value)}"
            )
        return self

    def only_if_one_of(self, key: str, values: Iterable[object]) -> Update:
        """Add the condition that an attribute has one of these values."""
        placeholders = ", ".join(self.value(value) for value in values)
        return self.only_if(f"{self.name(key)} IN ({placeholders})")

    def arguments(self) -> dict[str, Any]:
        """The arguments of `update_item` that say all this."""
        clauses = [f"{verb} {', '.join(parts)}" for verb, parts in self._clauses.items() if parts]
        return {
            "UpdateExpression": " ".join(clauses),
            "ConditionExpression": " AND ".join(self._conditions),
            "ExpressionAttributeNames": self._names,
            "ExpressionAttributeValues": self._values,
        }
