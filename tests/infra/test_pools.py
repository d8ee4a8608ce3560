"""The pools' stacks: everything off and at nothing by itself, and nobody may more than he must."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from synapse.adapters.catalogue import load_catalogue
from synapse.domain.extension import Extension
from tests.infra.translation import (
    ROOT,
    TEMPLATE,
    Template,
    of_type,
    read,
    statements,
    translated,
)

NETWORK, ECS, LAMBDA = (
    ROOT / "infra" / f"{name}.yaml" for name in ("network", "pools-ecs", "pools-lambda")
)
STACKS = {"Network": NETWORK, "EcsPools": ECS, "LambdaPools": LAMBDA}
SWITCHES = ["CpuImageUri", "GpuImageUri", "GpuEcsImageUri", "NeuronImageUri"]
DOCKERFILE = (ROOT / "workers" / "Dockerfile").read_text()


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_pool_is_off_by_itself(switch: str) -> None:
    assert read(TEMPLATE)["Parameters"][switch]["Default"] == ""


@pytest.mark.parametrize("name", [*STACKS, "ScaleFunction", "ScaleLog"])
def test_a_plain_deploy_has_nothing_of_them(name: str) -> None:
    """ScaleLog alone is there always: a log group without a line costs nothing."""
    resource = read(TEMPLATE)["Resources"][name]

    assert ("Condition" in resource) == (name != "ScaleLog")


@pytest.mark.parametrize("name", STACKS)
def test_a_stack_is_given_parameters_that_it_has_and_all_that_it_needs(name: str) -> None:
    given = set(read(TEMPLATE)["Resources"][name]["Properties"]["Parameters"])
    parameters = read(STACKS[name])["Parameters"]

    assert given <= set(parameters)
    assert {each for each, p in parameters.items() if "Default" not in p} <= given


def test_services_start_at_no_task_and_go_before_the_next_comes() -> None:
    services = of_type(read(ECS), "AWS::ECS::Service")

    assert set(services) == {"GpuService", "NeuronService"}
    for service in services.values():
        assert service["Properties"]["DesiredCount"] == 0
        deployment = service["Properties"]["DeploymentConfiguration"]
        assert deployment == {"MinimumHealthyPercent": 0, "MaximumPercent": 100}


def test_an_instance_without_a_task_goes_at_once() -> None:
    for provider in of_type(read(ECS), "AWS::ECS::CapacityProvider").values():
        managed = provider["Properties"]["ManagedInstancesProvider"]
        assert managed["InfrastructureOptimization"] == {"ScaleInAfter": 0}


def test_a_managed_function_has_no_floor_and_its_version_moves_with_its_image() -> None:
    gpu = read(LAMBDA)["Resources"]["GpuFunction"]["Properties"]

    assert gpu["FunctionScalingConfig"]["MinExecutionEnvironments"] == 0
    assert gpu["PublishToLatestPublished"] is True


def test_checks_are_ignored_only_for_the_accelerator() -> None:
    ignored = {
        (path.name, name): resource["Metadata"]["cfn-lint"]["config"]["ignore_checks"]
        for path in STACKS.values()
        for name, resource in read(path)["Resources"].items()
        if "cfn-lint" in resource.get("Metadata", {})
    }

    assert ignored == {("pools-lambda.yaml", "GpuFunction"): ["E3002"]}


def test_the_network_has_nothing_that_costs_while_it_is_idle_but_what_was_asked_for() -> None:
    resources = read(NETWORK)["Resources"]
    kinds = {resource["Type"] for resource in resources.values()}
    endpoints = of_type(read(NETWORK), "AWS::EC2::VPCEndpoint")

    assert not kinds & {"AWS::EC2::NatGateway", "AWS::EC2::EIP"}
    paid = {n: e for n, e in endpoints.items() if e["Properties"]["VpcEndpointType"] != "Gateway"}
    assert {name: endpoint["Condition"] for name, endpoint in paid.items()} == {
        "Logs": "HasLogsEndpoint"
    }
    assert read(NETWORK)["Parameters"]["LogsEndpoint"]["Default"] == "false"


def test_nothing_from_outside_gets_in() -> None:
    groups = of_type(read(NETWORK), "AWS::EC2::SecurityGroup")

    for name, group in groups.items():
        for rule in group["Properties"].get("SecurityGroupIngress", []):
            assert rule.get("CidrIp") in (None, {"Ref": "Cidr"}), name
            assert rule["FromPort"] == rule["ToPort"]


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def test_a_worker_may_beat_and_fetch_models_and_nothing_else() -> None:
    role = read(ECS)["Resources"]["WorkerRole"]

    rights = {statement["Sid"]: statement for statement in statements(role)}

    assert set(rights) == {"Beat", "Models", "ListModels"}
    assert rights["Beat"]["Action"] == ["dynamodb:PutItem", "dynamodb:DeleteItem"]
    assert rights["Beat"]["Condition"] == {
        "ForAllValues:StringEquals": {"dynamodb:LeadingKeys": ["worker"]}
    }


def test_only_the_scale_function_may_change_a_pools_size() -> None:
    template = translated()
    writers = {
        name
        for name, role in of_type(template, "AWS::IAM::Role").items()
        for statement in statements(role)
        if {"ecs:UpdateService", "lambda:PutFunctionScalingConfig"}
        & set(_listed(statement["Action"]))
    }

    assert writers == {"ScaleFunctionRole"}
    scale = template["Resources"]["ScaleFunction"]["Properties"]
    assert scale["ReservedConcurrentExecutions"] == 1


@pytest.mark.parametrize("function", ["ApiFunction", "ProfileFunction"])
def test_who_wakes_pools_is_told_whom_to_call_may_do_so_and_gets_there(function: str) -> None:
    resources = translated()["Resources"]
    scaler = {"Ref": "ScaleFunctionAliaslive"}
    variables = resources[function]["Properties"]["Environment"]["Variables"]
    role = resources[f"{function}Role"]
    [wake] = [
        statement["Fn::If"][1]
        for policy in role["Properties"]["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
        if "Fn::If" in statement and statement["Fn::If"][1].get("Sid") == "Wake"
    ]

    assert variables["SYNAPSE_SCALER_ARN"]["Fn::If"][:2] == ["HasScaled", scaler]
    assert (wake["Action"], wake["Resource"]) == ("lambda:InvokeFunction", scaler)
    # Functions among the workers reach no Lambda.
    assert "VpcConfig" not in resources[function]["Properties"]


def test_a_deploy_without_any_engine_is_refused_and_one_that_cannot_work() -> None:
    rules = read(TEMPLATE)["Rules"]

    (runs,) = rules["SomethingRuns"]["Assertions"]
    named = re.findall(r"'Ref': '(\w+)'", str(runs["Assert"]))

    assert set(named) == {"EngineUrl", *SWITCHES}
    assert "VpcSubnetIds" in str(rules["NoEngineBesideAnOwnNetwork"]["Assertions"])


@pytest.mark.parametrize("function", ["ChatFunction", "RunBatchFunction"])
def test_functions_that_call_workers_are_in_their_network(function: str) -> None:
    given, own = translated()["Resources"][function]["Properties"]["VpcConfig"]["Fn::If"][1:]

    assert given["SubnetIds"] == {"Ref": "VpcSubnetIds"}
    condition, network, nothing = own["Fn::If"]
    assert condition == "WorksInOwnNetwork"
    assert "Network" in str(network["SubnetIds"])
    assert nothing == {"Ref": "AWS::NoValue"}


def test_the_pinger_stays_outside_where_queues_cannot_be_reached() -> None:
    """It asks workers through their runners instead."""
    network = str(translated()["Resources"]["PingFunction"]["Properties"]["VpcConfig"])

    assert "WorksInOwnNetwork" not in network


@pytest.mark.parametrize("pool", ["cpu", "gpu", "neuron"])
def test_each_pool_has_an_image(pool: str) -> None:
    stage = DOCKERFILE.partition(f" AS aws-{pool}\n")[2].partition("\nFROM ")[0]

    assert 'CMD ["worker"]' in stage
    assert "synapse_container" in stage
    ignored = (ROOT / "workers" / "Dockerfile.dockerignore").read_text().splitlines()
    sent = [line.removeprefix("!") for line in ignored if line.startswith("!")]
    for source in re.findall(r"^COPY (?!--from)(\S+) ", stage, re.M):
        assert (ROOT / source).exists(), source
        assert any(source == each or source.startswith(f"{each}/") for each in sent), source


def test_functions_are_told_where_they_may_write() -> None:
    """In Lambda that is /tmp."""
    template: Template = read(LAMBDA)

    for function in of_type(template, "AWS::Lambda::Function").values():
        variables = function["Properties"]["Environment"]["Variables"]
        assert variables["SYNAPSE_STATE_DIR"].startswith("/tmp/")
        assert function["Properties"]["ImageConfig"] == {"Command": ["function"]}


def named_pools(value: Any) -> Iterator[dict[str, Any]]:
    """The pools that a part of the template names, with a number for each parameter of one."""
    if isinstance(value, str) and '{"name":' in value:
        text = re.sub(r"\$\{[^}]*\}", "0", value)
        yield from json.loads(text if text.startswith("[") else f"[{text}]")
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from named_pools(each)


def test_what_runs_vllm_is_said_to_have_its_extensions_only() -> None:
    said: dict[str, set[str]] = {}
    for pool in named_pools(read(TEMPLATE)["Resources"]):
        said.setdefault(pool["name"], set()).add(json.dumps(pool.get("extensions")))

    assert said == {
        **{name: {'["priority"]'} for name in ("gpu", "gpu-ecs", "neuron")},
        "cpu": {"null"},  # all that the models list
        "primary": {'["0"]'},  # what EngineExtensions says
    }


def test_it_is_said_how_each_pool_is_paid_and_so_its_runner_knows_it() -> None:
    """In a container on Lambda the engine has an address, as one that is always up."""
    said: dict[str, set[tuple[bool, bool]]] = {}
    in_container: dict[str, tuple[bool, bool]] = {}
    for pool in named_pools(read(TEMPLATE)["Resources"]):
        paid = pool.get("paidByCall", False), pool.get("beats", False)
        if pool.get("endpoint") == "127.0.0.1:8001":
            in_container[pool["name"]] = paid
        else:
            said.setdefault(pool["name"], set()).add(paid)

    assert in_container == {"cpu": (True, False), "gpu": (False, True)}
    by_call = {name for name, ways in said.items() if ways == {(True, False)}}
    assert by_call == {"cpu"}
    assert all(ways == {(name in by_call, False)} for name, ways in said.items())


def test_whoever_knows_the_worker_at_an_address_knows_which_models_it_has() -> None:
    resources = read(TEMPLATE)["Resources"]

    texts = [pool for pool in named_pools(resources) if pool["name"] == "primary"]
    lists = re.findall(
        r"\{'Models': \{'Fn::Join': \['\",\"', \{'Ref': 'EngineModels'\}", str(resources)
    )

    assert texts
    assert all(pool["models"] == ["0"] for pool in texts)
    assert len(lists) == len(texts)
    assert read(TEMPLATE)["Parameters"]["EngineModels"]["Default"] == ""


def test_the_worker_at_an_address_has_every_extension_unless_told_otherwise() -> None:
    default = read(TEMPLATE)["Parameters"]["EngineExtensions"]["Default"]

    assert set(default.split(",")) == set(Extension)


@pytest.mark.parametrize("pool", ["Cpu", "Gpu", "GpuEcs", "Neuron"])
def test_the_models_of_a_pool_are_in_the_catalogue_and_in_its_image(pool: str) -> None:
    models = read(TEMPLATE)["Parameters"][f"{pool}Models"]["Default"].split(",")
    repository = ROOT / "workers" / "triton" / ("models" if pool == "Cpu" else "models-gpu")

    assert set(models) <= {spec.name for spec in load_catalogue()}
    assert all((repository / model / "config.pbtxt").is_file() for model in models)


@pytest.mark.parametrize(
    ("stack", "size"),
    [
        ("LambdaPools", "GpuMaxVCpus"),
        ("EcsPools", "GpuTaskCpu"),
        ("EcsPools", "GpuTaskMemoryMiB"),
        ("EcsPools", "NeuronTaskCpu"),
        ("EcsPools", "NeuronTaskMemoryMiB"),
    ],
)
def test_who_names_other_instances_or_more_of_them_can_say_how_large_workers_are(
    stack: str, size: str
) -> None:
    """A pool cannot grow beyond its vCPUs, nor a worker start that is larger than its instance."""
    template = read(TEMPLATE)
    given = template["Resources"][stack]["Properties"]["Parameters"][size]["Ref"]

    assert (
        template["Parameters"][given]["Default"]
        == read(STACKS[stack])["Parameters"][size]["Default"]
    )
