"""What engines show of their load, as an agent reads it from Triton's metrics page."""

import asyncio
from dataclasses import replace

from tritonclient.grpc.aio import InferenceServerClient

from synapse_worker.agent import Agent, AgentConfig, AgentState
from synapse_worker.config import WorkerConfig
from tests.integration.worker.agents import echo
from tests.integration.worker.calls import LLM, generate
from tests.integration.worker.test_agent import running, until

PROMPT = "The history of the lighthouse is a long one, and it begins with a fire on a hill. " * 4


async def test_two_engines_side_by_side_show_who_runs_and_who_waits(
    echo_config: WorkerConfig,
) -> None:
    worker = replace(
        echo_config,
        models=("echo", LLM),
        model_parameters={
            "echo": {"delay_ms": "1500", "slots": "2"},
            LLM: {"slots": "2", "context_per_slot": "512"},
        },
    )
    async with (
        running(AgentConfig(worker, poll_interval_s=0.1)) as agent,
        InferenceServerClient(agent.grpc_address) as client,
    ):
        asked = [asyncio.create_task(echo(client, "echo")) for _ in range(5)]
        snapshot = await until(agent, lambda s: (s.running, s.queue_length) == (2, 3))
        assert snapshot.state is AgentState.INFERRING
        await asyncio.gather(*asked)
        await until(agent, lambda s: s.state is AgentState.READY)

        async def write(tokens: int) -> None:
            await generate(client, PROMPT, max_tokens=tokens, ignore_eos=True)

        writing = [asyncio.create_task(write(300)) for _ in range(2)]
        await until(agent, lambda s: (s.running, s.queue_length) == (2, 0))
        waiting = asyncio.create_task(write(5))
        snapshot = await until(
            agent, lambda s: (s.running, s.queue_length) == (2, 1) and bool(s.kv_cache_use)
        )
        assert snapshot.kv_cache_use is not None
        assert 0.05 < snapshot.kv_cache_use <= 1
        for task in writing:
            task.cancel()
        await waiting
        snapshot = await until(agent, lambda s: s.state is AgentState.READY and not s.kv_cache_use)
        first = await wait_for_rate(agent, above=0.0)
        # Each slot has read it once, and every further time it is there.
        await generate(client, PROMPT, max_tokens=1)
        assert await wait_for_rate(agent, above=first) > first

        await agent.unload(LLM)
        await until(agent, lambda s: (s.state, s.running) == (AgentState.READY, 0))
        await agent.load(LLM)
        await generate(client, "Hello", max_tokens=1)
        await until(agent, lambda s: (s.state, s.running) == (AgentState.READY, 0))
        assert await echo(client, "echo") == b"hello"


async def wait_for_rate(agent: Agent, above: float) -> float:
    snapshot = await until(agent, lambda s: (s.kv_cache_hit_rate or 0.0) > above)
    assert snapshot.kv_cache_hit_rate is not None
    assert snapshot.kv_cache_hit_rate < 1
    return snapshot.kv_cache_hit_rate
