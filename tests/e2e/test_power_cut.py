"""The emulator keeps over a power cut what AWS keeps: `make chaos ARGS=--aws` builds on that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.lasting import LastingEmulator


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[LastingEmulator]:
    machine = LastingEmulator(tmp_path)
    yield machine
    machine.close()


def test_what_was_confirmed_is_there_when_the_power_is_back(machine: LastingEmulator) -> None:
    before = machine.emulator
    before.dynamodb.create_table(
        TableName="jobs",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    before.dynamodb.put_item(TableName="jobs", Item={"pk": {"S": "job"}})
    before.s3.create_bucket(Bucket="payloads")
    before.s3.put_object(Bucket="payloads", Key="job", Body=b"a prompt")
    queue = before.sqs.create_queue(QueueName="waiting", Attributes={"VisibilityTimeout": "1"})
    for body in ("taken", "waits"):
        before.sqs.send_message(QueueUrl=queue["QueueUrl"], MessageBody=body)
    taken = before.sqs.receive_message(QueueUrl=queue["QueueUrl"], MaxNumberOfMessages=1)
    assert len(taken["Messages"]) == 1

    machine.cut_power()
    assert before.daemon.process.returncode == -9
    after = machine.start()

    assert after.dynamodb.get_item(TableName="jobs", Key={"pk": {"S": "job"}})["Item"]
    assert after.s3.get_object(Bucket="payloads", Key="job")["Body"].read() == b"a prompt"
    bodies: set[str] = set()
    while len(bodies) < 2:  # what was taken comes again: nobody has deleted it
        came = after.sqs.receive_message(QueueUrl=queue["QueueUrl"], WaitTimeSeconds=20)
        bodies |= {message["Body"] for message in came["Messages"]}
    assert bodies == {"taken", "waits"}
