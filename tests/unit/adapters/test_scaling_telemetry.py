"""What an operator reads of pools and cold starts."""

from __future__ import annotations

import json

import pytest

from synapse.adapters.telemetry.emf import EmfTelemetry
from synapse.adapters.telemetry.prometheus import PrometheusTelemetry
from synapse.domain.scaling import ScalingDecision
from synapse.ports import Telemetry

OUT = ScalingDecision("gpu", desired=3, was=1, need=2.5, reason="needs 2.50 workers")
IN = ScalingDecision("gpu", desired=0, was=3, need=0.0, reason="no work for 300 s")


def tell(telemetry: Telemetry) -> None:
    telemetry.pool_sized("gpu", 1, 1, 0)
    telemetry.pool_sized("gpu", 3, 1, 2)
    telemetry.scaled(OUT)
    telemetry.scaled(IN)
    telemetry.cold_started("m", "gpu", 12.5)


def test_prometheus_shows_the_pools_as_they_are_and_counts_their_changes() -> None:
    telemetry = PrometheusTelemetry()

    tell(telemetry)

    lines = telemetry.render().splitlines()
    assert 'synapse_pool_workers{pool="gpu",state="desired"} 3.0' in lines
    assert 'synapse_pool_workers{pool="gpu",state="ready"} 1.0' in lines
    assert 'synapse_pool_workers{pool="gpu",state="starting"} 2.0' in lines
    assert 'synapse_pool_scalings_total{pool="gpu",way="out"} 1.0' in lines
    assert 'synapse_pool_scalings_total{pool="gpu",way="in"} 1.0' in lines
    assert 'synapse_cold_start_seconds_sum{model="m"} 12.5' in lines


def test_emf_has_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry = EmfTelemetry("scale")

    tell(telemetry)
    telemetry.flush()

    pool, cold = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (pool["pool"], cold["model"], cold["pool"]) == ("gpu", "m", "gpu")
    assert pool["WorkersDesired"] == [1, 3]
    assert pool["WorkersReady"] == [1, 1]
    assert pool["WorkersStarting"] == [0, 2]
    assert (pool["ScaleOuts"], pool["ScaleIns"]) == ([1], [1])
    assert (cold["ColdStarts"], cold["ColdStartMs"]) == ([1], [12500])
