"""Requests, and the outcomes of asking an engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from synapse.adapters.triton.engine import TritonEngine
from synapse.domain.errors import EngineError
from synapse.domain.inference import ModelInput, Result, TextOrTokens
from synapse.domain.job import JobId
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.ports import InferenceRequest

Outcomes = dict[JobId, Result | EngineError]


def ask(prompt: TextOrTokens | None, request_id: str = "job-1", **changes: Any) -> InferenceRequest:
    timeout_s = changes.pop("timeout_s", 60.0)
    return InferenceRequest(JobId(request_id), timeout_s, ModelInput(prompt, **changes))


def ask_all(*prompts: str, **changes: Any) -> list[InferenceRequest]:
    return [ask(prompt, f"job-{at}", **changes) for at, prompt in enumerate(prompts)]


async def outcomes(
    engine: TritonEngine, model: ModelSpec, pool: Pool, requests: Sequence[InferenceRequest]
) -> Outcomes:
    """Each outcome by its job; one that comes twice is a failure."""
    found: Outcomes = {}
    async for job_id, outcome in engine.infer(model, pool, requests):
        assert job_id not in found
        found[job_id] = outcome
    assert found.keys() == {request.id for request in requests}
    return found


async def outcome(
    engine: TritonEngine, model: ModelSpec, pool: Pool, request: InferenceRequest
) -> Result | EngineError:
    return (await outcomes(engine, model, pool, [request]))[request.id]
