"""The metrics that are written, documented and looked at are the same."""

from __future__ import annotations

import json
import re

import pytest

from synapse.adapters.telemetry.exposition import exposition, fleet_exposition
from synapse.adapters.telemetry.prometheus import PrometheusTelemetry
from synapse.observability import NAMESPACE, Metric
from tests.infra.translation import MONITORING, ROOT, TEMPLATE, of_type, read

ALARM = "AWS::CloudWatch::Alarm"
DOCUMENT = (ROOT / "docs" / "metrics.md").read_text()


def test_every_metric_is_documented_and_nothing_else_is() -> None:
    table, _, _ = DOCUMENT.partition("## Alarms")

    documented = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)

    assert sorted(documented) == sorted(metric.value for metric in Metric)


def test_every_metric_of_one_machine_is_documented_and_nothing_else_is() -> None:
    _, _, table = DOCUMENT.partition("## One machine")
    shown = PrometheusTelemetry().render() + exposition((), {}, {}) + fleet_exposition((), (), ())
    found = re.findall(r"^# TYPE (\w+) (\w+)$", shown, re.MULTILINE)

    documented = re.findall(r"^\| `(\w+)` \| (\w+) \|", table, re.MULTILINE)

    assert sorted(documented) == sorted(each for each in found if not each[0].endswith("_created"))


def test_every_alarm_is_documented_and_nothing_else_is() -> None:
    _, _, rest = DOCUMENT.partition("## Alarms")
    table, _, _ = rest.partition("## One machine")
    documented = re.findall(r"^\| `(…?\w+)` \|", table, re.MULTILINE)
    alarms = {name.removesuffix("Alarm") for name in of_type(read(MONITORING), ALARM)}

    patterns = [name.replace("…", r"\w*") for name in documented]

    assert [each for each in alarms if not any(re.fullmatch(p, each) for p in patterns)] == []
    assert [p for p in patterns if not any(re.fullmatch(p, each) for each in alarms)] == []


@pytest.mark.parametrize("kind", ["AWS::CloudWatch::Alarm", "AWS::CloudWatch::Dashboard"])
def test_alarms_and_dashboard_look_only_at_metrics_that_are_written(kind: str) -> None:
    text = json.dumps(of_type(read(MONITORING), kind))
    searched = re.findall(r'MetricName=\\"(\w+)', text)
    alarmed = re.findall(rf'"Namespace": "{NAMESPACE}", "MetricName": "(\w+)"', text)

    used = {*searched, *alarmed}

    assert used
    assert used <= {metric.value for metric in Metric}


def test_the_worker_at_an_address_is_watched_by_a_model_that_it_has() -> None:
    """By another, of which nothing is written, the alarm would be on for ever."""
    template = read(TEMPLATE)
    watched = template["Resources"]["Monitoring"]["Properties"]["Parameters"]["EngineModel"]
    alarm = read(MONITORING)["Resources"]["WorkerUnhealthyAlarm"]["Properties"]

    assert {"Name": "model", "Value": {"Ref": "EngineModel"}} in alarm["Dimensions"]
    named = {"Fn::Select": [0, {"Ref": "EngineModels"}]}
    assert watched == {"Fn::If": ["NamesEngineModels", named, {"Ref": "DefaultModel"}]}
    assert "EngineModels" in str(template["Conditions"]["NamesEngineModels"])


def test_that_no_worker_is_up_yet_raises_no_alarm() -> None:
    """By that error a runner has its batch tried again: each few seconds while one starts."""
    alarms = of_type(read(MONITORING), ALARM)

    assert "BatchesLostAlarm" in alarms
    assert "RunBatchFunction" not in json.dumps(alarms)
