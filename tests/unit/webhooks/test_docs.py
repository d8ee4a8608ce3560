"""What the documentation tells receivers to do, done."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from synapse.domain.delivery import delivery_of, headers_of
from synapse.domain.job import JobState
from synapse.domain.webhook import EventType, Secret, event_of_job, secret_of
from tests.factories import NOW, a_job

DOCUMENT = (Path(__file__).resolve().parents[3] / "docs" / "webhooks.md").read_text()
SECRETS = [Secret(secret_of(bytes([n]) * 32)) for n in (1, 2)]
JOB = a_job().closed(JobState.COMPLETED, None, NOW)
DELIVERY = delivery_of(event_of_job(JOB), "we_1", "https://x.example/", "x.example", NOW)

Check = Callable[[str, Mapping[str, str], bytes], bool]


@pytest.fixture
def is_genuine() -> Check:
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    (source,) = [block for block in blocks if "def is_genuine" in block]
    names: dict[str, Any] = {"Mapping": Mapping}
    exec(source, names)
    return cast(Check, names["is_genuine"])


def test_the_documented_check_takes_what_we_sign_with_either_of_two_secrets(
    is_genuine: Check,
) -> None:
    headers = headers_of(DELIVERY, SECRETS, time.time())

    assert all(is_genuine(each.text, headers, DELIVERY.body.encode()) for each in SECRETS)


def test_the_documented_check_refuses_what_is_forged_altered_or_old(is_genuine: Check) -> None:
    body, good = DELIVERY.body.encode(), headers_of(DELIVERY, SECRETS[:1], time.time())
    old = headers_of(DELIVERY, SECRETS[:1], time.time() - 301)

    assert not is_genuine(SECRETS[1].text, good, body)
    assert not is_genuine(SECRETS[0].text, good, body.replace(b"completed", b"cancelled"))
    assert not is_genuine(SECRETS[0].text, {**good, "webhook-id": "evt_other"}, body)
    assert not is_genuine(SECRETS[0].text, old, body)


def test_every_type_of_event_is_documented() -> None:
    assert all(f"`{kind.value}`" in DOCUMENT for kind in EventType)
