"""The runner as it is everywhere, once the engine beside it answers."""

from __future__ import annotations

import os
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from functions.run_batch import handler as run_batch
from synapse.domain.errors import EngineUnavailable
from synapse_container.function import ENDED
from synapse_container.settings import ports_of

READY = f"http://127.0.0.1:{ports_of(os.environ)[0]}/v2/health/ready"
MARGIN_S = 45.0
"""Left of an invocation for the batch, however long the engine took to come up."""

MOST_WAIT_S = 40.0
"""The batcher comes four times, and then has to have time for the next pool."""

POLL_S = 0.1


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Run the batch, or the probe.

    Raises:
        EngineUnavailable: the engine does not come up; other errors are those of the runner.
    """
    left_s = context.get_remaining_time_in_millis() / 1000
    wait_until_up(min(MOST_WAIT_S, left_s - MARGIN_S))
    answer: dict[str, Any] = run_batch.handler(event, context)
    return answer


def wait_until_up(timeout_s: float) -> None:
    """Return once the engine answers, which is asked each time: it may be a new one by now.

    Raises:
        EngineUnavailable: it does not within `timeout_s`, or it has ended.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        if _has_ended():
            raise EngineUnavailable("the engine of this environment has ended")
        if _answers():
            return
        if time.monotonic() > deadline:
            raise EngineUnavailable("the engine of this environment has not come up yet")
        time.sleep(POLL_S)


def _has_ended() -> bool:
    ended = os.environ.get(ENDED, "")
    return bool(ended) and Path(ended).exists()


def _answers() -> bool:
    try:
        with urllib.request.urlopen(READY, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
