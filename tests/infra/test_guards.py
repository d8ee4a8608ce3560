"""What a deploy may ask for besides: a key of its own, users, a firewall. All of it is off."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from synapse.domain.access import Scope
from tests.infra.translation import (
    MONITORING,
    ROOT,
    TEMPLATE,
    Resource,
    gateway_responses,
    of_type,
    read,
    translated,
)

ENCRYPTION, USERS, FIREWALL = (
    ROOT / "infra" / f"{name}.yaml" for name in ("encryption", "users", "firewall")
)
STACKS = {"Encryption": ENCRYPTION, "Users": USERS, "Firewall": FIREWALL}
SWITCHES = {"KmsKey": "aws-owned", "UserPool": "none", "FirewallRequestsPerFiveMinutes": 0}
KEY = {
    "Fn::If": ["CreatesKey", {"Fn::GetAtt": ["Encryption", "Outputs.KeyArn"]}, {"Ref": "KmsKey"}]
}
NOTHING = {"Ref": "AWS::NoValue"}


def given(value: Any) -> Any:
    """A conditional value where there is a key."""
    condition, with_key, _ = value["Fn::If"]
    assert condition == "HasKey"
    return with_key


@pytest.mark.parametrize(("parameter", "off"), SWITCHES.items())
def test_a_plain_deploy_asks_for_none_of_it(parameter: str, off: str) -> None:
    assert read(TEMPLATE)["Parameters"][parameter]["Default"] == off


@pytest.mark.parametrize("name", STACKS)
def test_each_is_a_stack_with_a_condition_and_exactly_its_parameters(name: str) -> None:
    stack = read(TEMPLATE)["Resources"][name]

    assert stack["Condition"].startswith(("Has", "Creates"))
    assert set(stack["Properties"]["Parameters"]) == set(read(STACKS[name])["Parameters"])


def test_the_key_is_for_every_table_queue_bucket_and_log() -> None:
    template = translated()

    for name, table in of_type(template, "AWS::DynamoDB::Table").items():
        assert given(table["Properties"]["SSESpecification"])["KMSMasterKeyId"] == KEY, name
    for name, queue in of_type(template, "AWS::SQS::Queue").items():
        assert queue["Properties"]["KmsMasterKeyId"]["Fn::If"] == ["HasKey", KEY, NOTHING], name
        assert queue["Properties"]["SqsManagedSseEnabled"]["Fn::If"] == ["HasKey", NOTHING, True]
    for bucket in of_type(template, "AWS::S3::Bucket").values():
        encryption = bucket["Properties"]["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        (by_default,) = encryption
        chosen = given(by_default["ServerSideEncryptionByDefault"])
        assert chosen == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": KEY}
    for name, log in of_type(template, "AWS::Logs::LogGroup").items():
        assert log["Properties"]["KmsKeyId"]["Fn::If"] == ["HasKey", KEY, NOTHING], name


@pytest.mark.parametrize("stack", ["pools-lambda", "pools-ecs"])
def test_the_logs_of_pools_have_it_too(stack: str) -> None:
    template = read(ROOT / "infra" / f"{stack}.yaml")

    for log in of_type(template, "AWS::Logs::LogGroup").values():
        assert log["Properties"]["KmsKeyId"]["Fn::If"][0] == "HasLogKey"
    users = of_type(read(TEMPLATE), "AWS::Serverless::Application").values()
    (user,) = [u for u in users if u["Properties"]["Location"] == f"infra/{stack}.yaml"]
    assert given(user["Properties"]["Parameters"]["LogKey"]) == KEY


def test_the_key_turns_over_and_outlives_what_it_is_for() -> None:
    (key,) = of_type(read(ENCRYPTION), "AWS::KMS::Key").values()

    assert key["Properties"]["EnableKeyRotation"] is True
    assert key["DeletionPolicy"] == key["UpdateReplacePolicy"] == "Retain"


def test_the_key_is_used_through_the_services_that_keep_things_and_by_logs() -> None:
    (key,) = of_type(read(ENCRYPTION), "AWS::KMS::Key").values()
    by_sid = {each["Sid"]: each for each in key["Properties"]["KeyPolicy"]["Statement"]}

    through = by_sid["ThroughTheServices"]["Condition"]["StringEquals"]["kms:ViaService"]
    assert [re.findall(r"^(\w+)\.", each["Fn::Sub"])[0] for each in through] == [
        *("dynamodb", "s3", "sqs")
    ]
    assert "kms:EncryptionContext:aws:logs:arn" in json.dumps(by_sid["Logs"]["Condition"])
    assert "kms:CreateGrant" not in by_sid["ThroughTheServices"]["Action"]


def test_the_issuer_is_as_its_tokens_name_it() -> None:
    """`iss` of Cognito's tokens, to the letter."""
    issuer = read(USERS)["Outputs"]["Issuer"]["Value"]

    assert issuer == {"Fn::Sub": "https://cognito-idp.${AWS::Region}.${AWS::URLSuffix}/${Pool}"}


def rules() -> dict[str, Resource]:
    (firewall,) = of_type(read(FIREWALL), "AWS::WAFv2::WebACL").values()
    return {rule["Name"]: rule for rule in firewall["Properties"]["Rules"]}


def test_the_firewall_bounds_each_address_and_is_before_the_stage() -> None:
    rate = rules()["rate"]
    template = read(TEMPLATE)

    assert rate["Action"] == {"Block": {}}
    assert rate["Statement"]["RateBasedStatement"]["Limit"] == {"Ref": "RequestsPerFiveMinutes"}
    assert rate["Statement"]["RateBasedStatement"]["AggregateKeyType"] == "IP"
    stage = template["Resources"]["Firewall"]["Properties"]["Parameters"]["StageArn"]
    assert "${Api.Stage}" in stage["Fn::Sub"]


def test_there_is_one_stage_and_it_has_a_limit_and_logs() -> None:
    """A deployment that names a stage makes one more, live beside the guarded one."""
    deployments = of_type(translated(), "AWS::ApiGateway::Deployment").values()
    (stage,) = of_type(translated(), "AWS::ApiGateway::Stage").values()
    (api,) = of_type(translated(), "AWS::ApiGateway::RestApi").values()
    (everything,) = stage["Properties"]["MethodSettings"]

    assert [each["Properties"].get("StageName") for each in deployments] == [None]
    assert (everything["ResourcePath"], everything["HttpMethod"]) == ("/*", "*")
    assert {"ThrottlingRateLimit", "ThrottlingBurstLimit"} <= set(everything)
    assert stage["Properties"]["AccessLogSetting"]["DestinationArn"]
    assert api["Properties"]["Body"]["swagger"] == "2.0"


def test_the_firewall_stops_no_prompt_for_what_it_is_about() -> None:
    """A prompt may be long, and about scripts, paths and addresses."""
    group = rules()["common"]["Statement"]["ManagedRuleGroupStatement"]
    counted = {
        rule["Name"]
        for rule in group["RuleActionOverrides"]
        if rule["ActionToUse"] == {"Count": {}}
    }

    assert {
        "SizeRestrictions_BODY",
        "CrossSiteScripting_BODY",
        "GenericLFI_BODY",
        "GenericRFI_BODY",
        "EC2MetaDataSSRF_BODY",
    } <= counted
    assert not [name for name in counted if not name.endswith(("_BODY", "NoUserAgent_HEADER"))]


def test_the_firewall_keeps_no_samples_which_would_show_keys() -> None:
    text = FIREWALL.read_text()

    assert "SampledRequestsEnabled: true" not in text
    assert text.count("SampledRequestsEnabled: false") == 1 + len(rules())
    assert not of_type(read(FIREWALL), "AWS::WAFv2::LoggingConfiguration")


def test_users_are_added_by_administrators_and_change_nothing_by_which_they_are_known() -> None:
    (pool,) = of_type(read(USERS), "AWS::Cognito::UserPool").values()
    (client,) = of_type(read(USERS), "AWS::Cognito::UserPoolClient").values()

    assert pool["Properties"]["AdminCreateUserConfig"] == {"AllowAdminCreateUserOnly": True}
    assert client["Properties"]["WriteAttributes"] == ["email"]
    assert "custom:tenant" in client["Properties"]["ReadAttributes"]
    assert client["Properties"]["PreventUserExistenceErrors"] == "ENABLED"
    flows = client["Properties"]["ExplicitAuthFlows"]
    assert set(flows) == {"ALLOW_USER_PASSWORD_AUTH", "ALLOW_REFRESH_TOKEN_AUTH"}


def test_users_have_a_group_for_each_scope() -> None:
    groups = of_type(read(USERS), "AWS::Cognito::UserPoolGroup").values()

    names = {group["Properties"]["GroupName"] for group in groups}
    assert names == {f"synapse/{scope.value}" for scope in Scope}


def test_tokens_are_from_one_issuer_and_for_us() -> None:
    rules_of_deploys = read(TEMPLATE)["Rules"]

    assert "OidcIssuer" in json.dumps(rules_of_deploys["TokensAreFromOneIssuer"])
    assert "OidcAudience" in json.dumps(rules_of_deploys["TokensAreForUs"])


def test_a_bad_key_raises_no_alarm_and_an_authorizer_that_fails_does() -> None:
    """It refuses by an exception, which Lambda counts among its errors."""
    alarms = of_type(read(MONITORING), "AWS::CloudWatch::Alarm").values()
    watched = [(alarm["Properties"]["MetricName"], str(alarm["Properties"])) for alarm in alarms]

    of_authorizer = [metric for metric, text in watched if "AuthorizeFunction" in text]

    assert of_authorizer == ["Throttles"]
    assert "5XXError" in [metric for metric, _ in watched]
    failure = gateway_responses(translated())["AUTHORIZER_FAILURE"]
    assert failure["statusCode"] == "503"
