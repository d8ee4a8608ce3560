"""The id of the request that is being answered: its caller has it, and the log is to have it."""

from __future__ import annotations

from contextvars import ContextVar

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="unknown")
"""Set where a request comes in; what is begun for it, a stream too, is begun with it."""
