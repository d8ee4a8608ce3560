"""What schemathesis, in an environment of its own, is told: bodies with a chance, and our verdict.

`schemas.py` runs it, and says in the environment where answers are counted and who asks.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import schemathesis

sys.path.insert(0, os.environ["FUZZ_ROOT"])
from tests.fuzz.verdict import faults_of

COUNTED = Path(os.environ["FUZZ_COUNTED"])
FOREIGN = os.environ["FUZZ_FOREIGN"].split()
MODEL = "echo"


@schemathesis.hook  # type: ignore[untyped-decorator]
def map_body(context: Any, body: Any) -> Any:
    """A model that is there: else nothing is tried but that it is not."""
    if isinstance(body, dict) and isinstance(body.get("model"), str):
        body["model"] = MODEL
    return body


@schemathesis.check  # type: ignore[untyped-decorator]
def our_verdict(context: Any, response: Any, case: Any) -> None:
    """Counts the answer, and judges it as all others are."""
    counted = (case.operation.method.upper(), case.operation.path, response.status_code)
    with COUNTED.open("a", encoding="utf-8") as file:
        file.write(json.dumps(counted) + "\n")
    headers = {name.lower(): value[0] for name, value in response.headers.items()}
    faults = faults_of(response.status_code, headers, response.content, FOREIGN)
    assert not faults, "; ".join(faults)
