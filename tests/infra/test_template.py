"""Rules for the template, checked on what CloudFormation will really be given."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.infra.translation import (
    MONITORING,
    ROOT,
    TEMPLATE,
    Resource,
    Template,
    of_type,
    read,
    statements,
    translate,
    translated,
)

FUNCTIONS = [
    "ApiFunction",
    "AuthorizeFunction",
    "ChatFunction",
    "DispatchFunction",
    "RunBatchFunction",
    "GiveBackFunction",
    "AdvanceBatchFunction",
    "ProfileFunction",
    "PingFunction",
    "ScaleFunction",
    "AnnounceFunction",
    "DeliverFunction",
]
LONGEST_S = {"ChatFunction": 900, "AdvanceBatchFunction": 300}
"""Of those that may take longer than two minutes."""

MACHINES = {
    "Batcher": ("EXPRESS", "batcher.asl.json"),
    "FileBatcher": ("STANDARD", "file_batch.asl.json"),
    "Profiler": ("STANDARD", "profiler.asl.json"),
}
CONSUMERS = {
    "HighQueue": "DispatchFunction",
    "NormalQueue": "DispatchFunction",
    "LowQueue": "DispatchFunction",
    "WebhookQueue": "DeliverFunction",
}
QUEUES = list(CONSUMERS)
TEMPLATES = [TEMPLATE, *sorted((ROOT / "infra").glob("*.yaml"))]
NAMED_WITHIN_ANOTHER = {
    *("AWS::Lambda::Alias", "AWS::Lambda::LayerVersion"),
    *("AWS::Cognito::UserPoolClient", "AWS::Cognito::UserPoolGroup"),
}
"""Their names are a function's, a layer's (which counts versions) or a pool's own."""


@pytest.fixture(scope="module")
def template() -> Template:
    return translated()


def properties(template: Template, name: str) -> Resource:
    found: Resource = template["Resources"][name]["Properties"]
    return found


def test_the_functions_are_those_the_rules_below_are_for(template: Template) -> None:
    assert sorted(of_type(template, "AWS::Lambda::Function")) == sorted(FUNCTIONS)
    folders = {path.parent.name for path in (ROOT / "functions").glob("*/handler.py")}
    uris = {f["Properties"]["CodeUri"] for f in source_functions().values()}
    assert uris == {f"functions/{folder}/" for folder in folders}


def source_functions() -> dict[str, Resource]:
    return of_type(read(TEMPLATE), "AWS::Serverless::Function")


def of_handlers(*words: str) -> set[str]:
    """The functions whose own code has one of the words."""
    found = set()
    for name, function in source_functions().items():
        folder = ROOT / function["Properties"]["CodeUri"]
        code = "".join(path.read_text() for path in folder.glob("*.py"))
        if any(word in code for word in words):
            found.add(name)
    return found


def test_whoever_knows_the_pools_knows_what_is_kept_warm_of_them(template: Template) -> None:
    """Or he would think that a worker is started anew which the clock has up."""
    functions = of_type(template, "AWS::Lambda::Function")
    given = {
        name: function["Properties"]["Environment"]["Variables"]
        for name, function in functions.items()
    }

    knowing = {name for name, variables in given.items() if "SYNAPSE_POOLS" in variables}

    assert len(knowing) == 8
    for name in knowing:
        assert given[name].get("SYNAPSE_WARM") == {"Ref": "WarmWindows"}, name


def test_whoever_takes_requests_in_knows_the_pools_by_which_their_cost_is_reckoned(
    template: Template,
) -> None:
    takers = of_handlers("target().api", "target().advancer")

    assert takers == {"ApiFunction", "ChatFunction", "AdvanceBatchFunction"}
    for name in takers:
        assert "SYNAPSE_POOLS" in properties(template, name)["Environment"]["Variables"], name
        actions = {
            action
            for statement in statements(template["Resources"][f"{name}Role"])
            if statement["Resource"] == {"Fn::GetAtt": ["RegistryTable", "Arn"]}
            for action in statement["Action"]
        }
        assert {"dynamodb:GetItem", "dynamodb:Query"} <= actions, name


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_function_has_a_log_group_of_its_own_with_retention(
    template: Template, name: str
) -> None:
    logging = properties(template, name)["LoggingConfig"]

    group = properties(template, logging["LogGroup"]["Ref"])

    assert logging["LogFormat"] == "JSON"
    assert group["RetentionInDays"]["Fn::FindInMap"][2] == "LogDays"
    users = [f for f in FUNCTIONS if properties(template, f)["LoggingConfig"] == logging]
    assert users == [name]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_function_is_traced_and_runs_within_a_limit(template: Template, name: str) -> None:
    function = properties(template, name)

    assert function["TracingConfig"] == {"Mode": "Active"}
    assert 3 <= function["Timeout"] <= LONGEST_S.get(name, 120)
    assert function["Architectures"] == [{"Ref": "Architecture"}]


@pytest.mark.parametrize("layer", ["CoreLayer", "EngineLayer"])
def test_a_change_in_a_layer_alone_publishes_new_versions_of_its_functions(layer: str) -> None:
    before = read(TEMPLATE)
    after = read(TEMPLATE)
    after["Resources"][layer]["Properties"]["ContentUri"] = "s3://bucket/changed"

    moved = versions(translate(before)).symmetric_difference(versions(translate(after)))

    users = [name for name in FUNCTIONS if layer == "CoreLayer" or uses_engine(name)]
    assert {name[: name.index("Version")] for name in moved} == set(users)


def versions(template: Template) -> set[str]:
    return set(of_type(template, "AWS::Lambda::Version"))


def uses_engine(name: str) -> bool:
    layers: list[Any] = source_functions()[name]["Properties"].get("Layers", [])
    return {"Ref": "EngineLayer"} in layers


@pytest.mark.parametrize("name", FUNCTIONS)
def test_callers_reach_a_function_through_its_alias(template: Template, name: str) -> None:
    alias = properties(template, f"{name}Aliaslive")

    assert alias["Name"] == "live"
    for kind, key in (
        ("AWS::Lambda::EventSourceMapping", "FunctionName"),
        ("AWS::Lambda::Permission", "FunctionName"),
    ):
        for resource in of_type(template, kind).values():
            assert "Alias" in resource["Properties"][key]["Ref"]


@pytest.mark.parametrize("name", QUEUES)
def test_a_queue_waits_six_timeouts_and_parks_what_fails(template: Template, name: str) -> None:
    queue = properties(template, name)
    source = event_source(template, name)
    timeout_s = properties(template, CONSUMERS[name])["Timeout"]

    letters = properties(template, queue["RedrivePolicy"]["deadLetterTargetArn"]["Fn::GetAtt"][0])

    window_s = source.get("MaximumBatchingWindowInSeconds", 0)
    assert queue["VisibilityTimeout"] >= 6 * timeout_s + window_s
    assert queue["RedrivePolicy"]["maxReceiveCount"] >= 3
    assert letters["MessageRetentionPeriod"] > queue.get("MessageRetentionPeriod", 345_600)


def test_every_queue_is_encrypted(template: Template) -> None:
    queues = of_type(template, "AWS::SQS::Queue")

    assert len(queues) == 2 * len(QUEUES)
    assert all(queue["Properties"]["SqsManagedSseEnabled"] for queue in queues.values())


@pytest.mark.parametrize("name", QUEUES)
def test_a_dead_letter_raises_an_alarm(name: str) -> None:
    letters = name.replace("Queue", "DeadLetters")
    alarms = of_type(read(MONITORING), "AWS::CloudWatch::Alarm").values()

    found = [a["Properties"] for a in alarms if {"Ref": letters} in dimensions(a)]

    assert [alarm["Threshold"] for alarm in found] == [1]


def dimensions(alarm: Resource) -> list[Any]:
    return [dimension["Value"] for dimension in alarm["Properties"]["Dimensions"]]


def test_every_alarm_tells_somebody_and_every_function_has_one() -> None:
    alarms = of_type(read(MONITORING), "AWS::CloudWatch::Alarm").values()

    watched = [value["Ref"] for a in alarms for value in dimensions(a) if isinstance(value, dict)]

    assert all(alarm["Properties"]["AlarmActions"] for alarm in alarms)
    # What runners lose is counted where it comes back, of all pools together.
    assert set(FUNCTIONS) - {"RunBatchFunction"} <= set(watched)
    assert "BatchesLostAlarm" in of_type(read(MONITORING), "AWS::CloudWatch::Alarm")


def test_the_monitoring_stack_is_given_exactly_its_parameters(template: Template) -> None:
    given = properties(template, "Monitoring")["Parameters"]

    assert set(given) == set(read(MONITORING)["Parameters"])


@pytest.mark.parametrize("name", QUEUES)
def test_a_consumer_reports_failures_item_by_item(template: Template, name: str) -> None:
    source = event_source(template, name)

    assert source["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert source["BatchSize"] <= 10 or source["MaximumBatchingWindowInSeconds"] >= 1


@pytest.mark.parametrize("name", FUNCTIONS)
def test_whoever_sends_to_a_queue_that_calls_it_is_not_stopped_for_that(
    template: Template, name: str
) -> None:
    """Lambda stops what is called more than 16 times in one chain of messages, unless told not to.

    The message is a dead letter then, though nothing failed.
    """
    role = properties(template, name)["Role"]["Fn::GetAtt"][0]
    callers = [queue for queue, consumer in CONSUMERS.items() if consumer == name]
    sends = [
        json.dumps(statement["Resource"])
        for statement in statements(template["Resources"][role])
        if "sqs:SendMessage" in statement["Action"]
    ]

    calls_itself = any(f'"{queue}"' in resource for queue in callers for resource in sends)

    assert calls_itself == (name in {"DispatchFunction", "DeliverFunction"})
    assert (properties(template, name).get("RecursiveLoop") == "Allow") == calls_itself


def event_source(template: Template, queue: str) -> Resource:
    sources = of_type(template, "AWS::Lambda::EventSourceMapping").values()
    arn = {"Fn::GetAtt": [queue, "Arn"]}
    found: list[Resource] = [s["Properties"] for s in sources]
    return next(source for source in found if source["EventSourceArn"] == arn)


def test_nothing_logs_payloads(template: Template) -> None:
    for machine in of_type(template, "AWS::StepFunctions::StateMachine").values():
        assert machine["Properties"]["LoggingConfiguration"]["IncludeExecutionData"] is False
    for stage in of_type(template, "AWS::ApiGateway::Stage").values():
        assert not any(s["DataTraceEnabled"] for s in stage["Properties"]["MethodSettings"])
    assert "POWERTOOLS_LOGGER_LOG_EVENT" not in json.dumps(template)


def test_the_state_machines_are_those_the_rules_below_are_for(template: Template) -> None:
    assert set(of_type(template, "AWS::StepFunctions::StateMachine")) == set(MACHINES)


@pytest.mark.parametrize("name", MACHINES)
def test_a_state_machine_is_traced_and_logged(template: Template, name: str) -> None:
    machine = properties(template, name)

    assert machine["StateMachineType"] == MACHINES[name][0]
    assert machine["TracingConfiguration"] == {"Enabled": True}
    assert machine["LoggingConfiguration"]["Destinations"]


@pytest.mark.parametrize("name", MACHINES)
def test_a_state_machine_is_given_exactly_its_substitutions(template: Template, name: str) -> None:
    machine = properties(template, name)
    definition = (ROOT / "statemachines" / MACHINES[name][1]).read_text()

    used = set(re.findall(r"\$\{(\w+)\}", definition))

    assert used == set(machine["DefinitionSubstitutions"])


@pytest.mark.parametrize("kind", ["AWS::DynamoDB::Table", "AWS::S3::Bucket"])
def test_state_outlives_the_stack_in_production(template: Template, kind: str) -> None:
    on_delete = {stage: v["OnDelete"] for stage, v in template["Mappings"]["Stages"].items()}

    assert on_delete["prod"] == "Retain"
    for resource in of_type(template, kind).values():
        assert resource["DeletionPolicy"]["Fn::FindInMap"][2] == "OnDelete"
        assert resource["UpdateReplacePolicy"] == "Retain"


def test_tables_expire_recover_and_are_encrypted(template: Template) -> None:
    for table in of_type(template, "AWS::DynamoDB::Table").values():
        assert table["Properties"]["TimeToLiveSpecification"]["Enabled"]
        recovery = table["Properties"]["PointInTimeRecoverySpecification"]
        assert recovery["PointInTimeRecoveryEnabled"]
        assert all(each["SSEEnabled"] for each in branches(table["Properties"]["SSESpecification"]))


def branches(value: Any) -> list[Any]:
    """What a conditional value may be."""
    return list(value["Fn::If"][1:]) if "Fn::If" in value else [value]


def test_the_bucket_is_private_and_forgets(template: Template) -> None:
    (bucket,) = of_type(template, "AWS::S3::Bucket").values()
    (policy,) = of_type(template, "AWS::S3::BucketPolicy").values()
    (denied,) = policy["Properties"]["PolicyDocument"]["Statement"]

    assert all(bucket["Properties"]["PublicAccessBlockConfiguration"].values())
    assert bucket["Properties"]["LifecycleConfiguration"]["Rules"][0]["Status"] == "Enabled"
    assert denied["Effect"] == "Deny"
    assert denied["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_the_resources_are_named_by_cloudformation_or_after_the_stack(path: Path) -> None:
    """A fixed name would keep a second stack out of the account."""
    names = {
        name: value
        for name, resource in translated(path)["Resources"].items()
        for key, value in resource.get("Properties", {}).items()
        if key.endswith("Name") and key != "MetricName"
        if resource["Type"] not in NAMED_WITHIN_ANOTHER and isinstance(value, str)
    }

    assert names == {}


def test_schedules_are_named_by_cloudformation(template: Template) -> None:
    """SAM names a schedule after its function unless it is told not to."""
    schedules = of_type(template, "AWS::Scheduler::Schedule")

    assert len(schedules) == 3
    assert not [name for name, each in schedules.items() if "Name" in each["Properties"]]


def test_the_outputs_are_there_that_users_and_tests_read(template: Template) -> None:
    needed = {"ApiUrl", "ApiId", "BatcherArn", "JobsTableName", "BlobBucketName"}
    needed |= {f"{name}Arn" for name in MACHINES}
    needed |= {f"{name}Url" for name in QUEUES} | {f"{name}Arn" for name in FUNCTIONS}

    assert needed <= set(template["Outputs"])
