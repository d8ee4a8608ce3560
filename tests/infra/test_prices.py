"""What the cost model takes for the template: prices, alarms, pools that take every tier."""

from __future__ import annotations

import pytest
from samtranslator.yaml_helper import yaml_parse

from synapse.domain import cost
from synapse.domain.price_list import LAMBDA_FEE, USD_HOUR, USD_LAMBDA_GB_S
from synapse.domain.reference import DEPLOYABLE
from tests.infra.translation import MONITORING, ROOT, TEMPLATE

PARAMETERS = yaml_parse(TEMPLATE.read_text())["Parameters"]


def test_workers_in_lambda_have_the_price_of_the_list() -> None:
    cpu_gb = PARAMETERS["CpuMemoryMiB"]["Default"] / 1024
    gpu_usd = PARAMETERS["GpuPricePerHour"]["Default"]

    assert PARAMETERS["Architecture"]["Default"] == "arm64"
    assert PARAMETERS["CpuPricePerHour"]["Default"] == pytest.approx(
        cpu_gb * USD_LAMBDA_GB_S * 3600, rel=1e-3
    )
    assert gpu_usd == pytest.approx(USD_HOUR["g6.xlarge"] * LAMBDA_FEE, rel=1e-3)


def test_as_many_alarms_are_paid_as_there_are() -> None:
    resources = yaml_parse(MONITORING.read_text())["Resources"].values()

    kinds = [each["Type"] for each in resources]
    assert kinds.count("AWS::CloudWatch::Alarm") == cost.ALARMS
    assert kinds.count("AWS::CloudWatch::Dashboard") == 1


def test_machines_that_count_as_ours_have_a_service_on_ecs() -> None:
    resources = yaml_parse((ROOT / "infra" / "pools-ecs.yaml").read_text())["Resources"]

    services = {name for name, each in resources.items() if each["Type"] == "AWS::ECS::Service"}
    assert services == {f"{kind.capitalize()}Service" for kind in DEPLOYABLE}
