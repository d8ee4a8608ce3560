"""What a runner is asked besides batches: to try its engine, or to stay awake for a moment."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from synapse.domain.errors import EngineError, EngineUnavailable
from synapse.domain.inference import Completion, ModelInput, Result
from synapse.domain.job import JobId, Usage
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.ports import InferenceEngine, InferenceRequest

KEY = "probe"
HOLD_S = 0.2
"""An environment that is only to be kept warm is busy for so long: another call meets another."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A tiny inference on one worker; without a model, nothing but a call."""

    model: str
    pool: str
    endpoint: str
    worker: str
    timeout_s: float
    input: ModelInput

    async def run(self, engine: InferenceEngine, spec: ModelSpec, pool: Pool) -> dict[str, Any]:
        """Ask the engine; the answer as the event's sender takes it."""
        if self.endpoint and not pool.is_fixed:
            pool = replace(pool, endpoint=self.endpoint, worker=self.worker)
        request = InferenceRequest(JobId("probe"), self.timeout_s, self.input)
        async for _, outcome in engine.infer(spec, pool, [request]):
            if isinstance(outcome, EngineError):
                return {"error": {"code": outcome.code, "message": outcome.message}}
        return {}


def probe_to_event(model: ModelSpec, pool: Pool, request: InferenceRequest) -> dict[str, Any]:
    """The event that has a runner try its engine."""
    return {
        KEY: {
            "model": model.name,
            "pool": pool.name,
            "endpoint": pool.endpoint,
            "worker": pool.worker,
            "timeoutS": request.timeout_s,
            "prompt": request.input.prompt,
            "inputs": list(request.input.inputs),
            "parameters": dict(request.input.parameters),
        }
    }


def awake_event() -> dict[str, Any]:
    """The event that only keeps an environment warm."""
    return {KEY: {}}


def probe_from_event(event: Mapping[str, Any]) -> Probe | None:
    """The probe of an event that is one (`is_probe`); None if it is only to keep warm."""
    body = event[KEY]
    if not body:
        return None
    return Probe(
        body["model"],
        body["pool"],
        body["endpoint"],
        body["worker"],
        body["timeoutS"],
        ModelInput(body["prompt"], parameters=body["parameters"], inputs=tuple(body["inputs"])),
    )


def is_probe(event: Mapping[str, Any]) -> bool:
    """Whether it is no batch."""
    return KEY in event


async def stay_awake() -> dict[str, Any]:
    """Keep the environment busy for a moment."""
    await asyncio.sleep(HOLD_S)
    return {}


def outcome_of(answer: Mapping[str, Any]) -> Result | EngineError:
    """What came of a probe; the text itself is nobody's business."""
    error = answer.get("error")
    if error is None:
        return Completion("", "stop", Usage())
    return EngineUnavailable(error["message"])
