"""What Lambda hands to a function besides the event."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


def a_context(function: str, arn: str = "", left_ms: int = 60_000) -> Any:
    """The context of a call of that function, with so many milliseconds left."""
    return SimpleNamespace(
        function_name=function,
        memory_limit_in_mb=512,
        invoked_function_arn=arn or f"arn:aws:lambda:us-east-1:123456789012:function:{function}",
        aws_request_id="request-1",
        get_remaining_time_in_millis=lambda: left_ms,
    )
