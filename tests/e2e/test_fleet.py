"""The application with every pool switched on: what is there, and that it starts at nothing."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from synapse.adapters.aws.workers import DynamoWorkerRegistry
from synapse.domain.worker import CacheLevel, Worker, WorkerModel, WorkerState
from tests.e2e.container import container
from tests.e2e.one_machine.fleets import until
from tests.e2e.stack import Stack
from tests.e2e.worker import Worker as Triton

POOL = "gpu-ecs"


def service(fleet: Stack, pool: str = "Gpu") -> Any:
    arn = fleet.outputs[f"{pool}ServiceArn"]
    answer = fleet.emulator.ecs.describe_services(cluster=arn.split("/")[1], services=[arn])
    (found,) = answer["services"]
    return found


def workers(fleet: Stack) -> DynamoWorkerRegistry:
    return DynamoWorkerRegistry(fleet.emulator.dynamodb, fleet.outputs["RegistryTableName"])


def a_worker(name: str, endpoint: str, lease_s: float) -> Worker:
    now = time.time()
    return Worker(
        id=name,
        pool=POOL,
        accelerator="gpu",
        state=WorkerState.READY,
        endpoint=endpoint,
        models=(WorkerModel("echo", "1", CacheLevel.GPU_RESIDENT),),
        started_at=now - 60,
        beat_at=now,
        lease_until=now + lease_s,
    )


def test_the_network_has_two_subnets_free_endpoints_and_no_nat(fleet: Stack) -> None:
    ec2 = fleet.emulator.session.client("ec2", endpoint_url=fleet.emulator.url)
    (vpc,) = [v for v in ec2.describe_vpcs()["Vpcs"] if v["CidrBlock"] == "10.83.0.0/16"]
    of_vpc: Any = [{"Name": "vpc-id", "Values": [vpc["VpcId"]]}]

    subnets = ec2.describe_subnets(Filters=of_vpc)["Subnets"]
    endpoints = ec2.describe_vpc_endpoints(Filters=of_vpc)["VpcEndpoints"]

    assert [subnet["MapPublicIpOnLaunch"] for subnet in subnets] == [True, True]
    kinds = {e["ServiceName"].rpartition(".")[2]: e["VpcEndpointType"] for e in endpoints}
    assert kinds == {"dynamodb": "Gateway", "s3": "Gateway", "logs": "Interface"}
    assert ec2.describe_nat_gateways(Filter=of_vpc)["NatGateways"] == []


def test_workers_let_in_nobody_but_the_functions_that_call_them(fleet: Stack) -> None:
    ec2 = fleet.emulator.session.client("ec2", endpoint_url=fleet.emulator.url)
    groups = {g["Description"]: g for g in ec2.describe_security_groups()["SecurityGroups"]}
    callers = next(g for d, g in groups.items() if d.startswith("The functions"))
    of_workers = next(g for d, g in groups.items() if d.startswith("Workers."))

    (rule,) = of_workers["IpPermissions"]

    assert (rule["FromPort"], rule["ToPort"]) == (8001, 8001)
    assert [pair["GroupId"] for pair in rule["UserIdGroupPairs"]] == [callers["GroupId"]]
    assert callers["IpPermissions"] == []


@pytest.mark.parametrize(
    ("pool", "requirements"),
    [
        ("Gpu", {"acceleratorManufacturers": ["nvidia"]}),
        ("Neuron", {"acceleratorNames": ["inferentia2"]}),
    ],
)
def test_pools_on_ecs_have_capacity_of_their_kind_and_no_task(
    fleet: Stack, pool: str, requirements: dict[str, Any]
) -> None:
    found = service(fleet, pool)
    (strategy,) = found["capacityProviderStrategy"]
    ecs = fleet.emulator.ecs
    providers: Any = ecs.describe_capacity_providers(
        capacityProviders=[strategy["capacityProvider"]]
    )["capacityProviders"]

    (template,) = [p["managedInstancesProvider"]["instanceLaunchTemplate"] for p in providers]
    task = ecs.describe_task_definition(taskDefinition=found["taskDefinition"])["taskDefinition"]

    assert (found["desiredCount"], found["runningCount"]) == (0, 0)
    assert requirements.items() <= template["instanceRequirements"].items()
    assert len(template["networkConfiguration"]["subnets"]) == 2
    assert task["networkMode"] == "host"
    assert task["requiresCompatibilities"] == ["MANAGED_INSTANCES"]


def test_pools_in_lambda_are_images_with_the_runner_in_them(fleet: Stack) -> None:
    (cpu, gpu, *_) = json.loads(fleet.environment("dispatch")["SYNAPSE_POOLS"])
    functions = fleet.emulator.functions

    configs: Any = [
        functions.get_function_configuration(FunctionName=pool["runnerArn"].split(":$")[0])
        for pool in (cpu, gpu)
    ]

    assert [pool["name"] for pool in (cpu, gpu)] == ["cpu", "gpu"]
    assert [config["PackageType"] for config in configs] == ["Image", "Image"]
    assert [config["ImageConfigResponse"]["ImageConfig"]["Command"] for config in configs] == [
        ["function"]
    ] * 2
    provider = configs[1]["CapacityProviderConfig"]["LambdaManagedInstancesCapacityProviderConfig"]
    assert ":capacity-provider:" in provider["CapacityProviderArn"]


@pytest.mark.parametrize("function", ["api", "chat", "dispatch", "run_batch", "ping", "scale"])
def test_the_pools_leave_room_in_the_environment(fleet: Stack, function: str) -> None:
    """Lambda takes 4 KB of variables; names at AWS are up to 30 characters longer."""
    environment = fleet.environment(function)

    assert sum(len(key) + len(value) for key, value in environment.items()) < 3584


def test_functions_that_call_workers_see_only_those_they_can_call(fleet: Stack) -> None:
    seen = {
        function: [
            pool["name"] for pool in json.loads(fleet.environment(function)["SYNAPSE_POOLS"])
        ]
        for function in ("dispatch", "chat", "run_batch")
    }

    assert seen["dispatch"] == ["cpu", "gpu", POOL, "neuron"]
    assert seen["chat"] == seen["run_batch"] == [POOL, "neuron"]


def test_a_job_at_zero_starts_a_worker_that_runs_it_and_goes_again(
    fleet: Stack, tmp_path: Path
) -> None:
    """Real: the wake, the scale function under its own rights, the worker and its heartbeats."""
    accepted = fleet.call("POST", "/async-infer", {"model": "echo", "prompt": "from zero"})
    assert accepted.status == 202, accepted.body
    assert accepted.json()["cold_start"]

    until(lambda: service(fleet)["desiredCount"] == 1, why="no worker was asked for", every_s=0.2)
    assert service(fleet, "Neuron")["desiredCount"] == 0
    with container(fleet, POOL, tmp_path) as worker:
        result = fleet.result(accepted.json()["jobId"])
        alive = asyncio.run(workers(fleet).workers(time.time()))
        until(lambda: scaled_to(fleet, 0), why="the pool did not go down again", every_s=0.5)
    after = asyncio.run(workers(fleet).workers(time.time()))

    assert result["status"] == "COMPLETED", result
    assert result["result"]["text"] == "from zero"
    assert [each.id for each in alive] == [result["worker"]]
    assert worker.process.returncode == 0, worker.log_text()
    assert list(after) == [], "it did not say that it has left"


def scaled_to(fleet: Stack, desired: int) -> bool:
    fleet.invoke("ScaleFunctionArn", {})
    return int(service(fleet)["desiredCount"]) == desired


def test_a_heartbeat_leads_the_runner_to_its_worker_and_a_dead_ones_does_not(
    fleet: Stack, triton: Triton
) -> None:
    registry = workers(fleet)
    asyncio.run(registry.beat(a_worker("dead", "127.0.0.1:1", lease_s=0.5)))
    asyncio.run(registry.beat(a_worker("alive", triton.grpc_address, lease_s=300)))
    time.sleep(3)

    jobs = [fleet.submit(model="echo", prompt=f"job {number}") for number in range(6)]
    results = [fleet.result(job) for job in jobs]

    assert {result["status"] for result in results} == {"COMPLETED"}
    assert {result["worker"] for result in results} == {"alive"}
    asyncio.run(registry.forget("alive"))


def test_operators_see_the_pools_and_why_a_request_goes_where(fleet: Stack) -> None:
    pools = fleet.call("GET", "/api/admin/pools")
    route = fleet.call("GET", "/api/admin/route?model=echo&tier=gold")

    assert pools.status == 200, pools.body
    assert {pool["name"] for pool in pools.json()["data"]} >= {POOL}
    assert route.status == 200, route.body
    assert POOL in json.dumps(route.json())


def test_the_profiler_starts_the_very_pool_that_it_is_to_measure(fleet: Stack) -> None:
    """Real: the wake by the profile function, under its own rights. The last one: it is held."""
    client = fleet.emulator.stepfunctions
    wish = {"model": "smollm2-135m-instruct", "pool": "neuron"}
    execution = client.start_execution(
        stateMachineArn=fleet.outputs["ProfilerArn"], input=json.dumps(wish)
    )

    until(
        lambda: service(fleet, "Neuron")["desiredCount"] == 1,
        why="no worker was asked for",
        every_s=0.2,
    )

    client.stop_execution(executionArn=execution["executionArn"])
