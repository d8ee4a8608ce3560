"""Models that come and go in a real Triton, under an agent."""

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from synapse_worker.agent import Agent, AgentConfig, AgentState, Snapshot
from synapse_worker.agent.errors import NoAnswer, NoRoom, NotNow
from synapse_worker.backoff import RestartPolicy
from synapse_worker.config import WorkerConfig
from synapse_worker.errors import UnknownModel, WorkerError
from synapse_worker.stubs import live_stubs
from tests.integration.worker.agents import ask, echo, echo_repository, hold_of, loaded, mark_of
from tests.patience import PATIENCE_S

QUICK = RestartPolicy(base_delay_s=0.05, max_delay_s=0.1)
HOOKS = {"test_hooks": "true"}
WAITS = """
import os, time
while not os.path.exists({gate!r}):
    time.sleep(0.05)
"""


@pytest.fixture
def config(echo_config: WorkerConfig, tmp_path: Path) -> AgentConfig:
    """A Triton with one of three copies of echo loaded."""
    worker = replace(
        echo_config,
        models=("echo-a",),
        model_repositories=(echo_repository(tmp_path / "models"),),
        model_parameters=dict.fromkeys(("echo-a", "echo-b", "echo-c"), HOOKS),
        restart=QUICK,
    )
    return AgentConfig(worker, poll_interval_s=0.1)


@asynccontextmanager
async def running(
    config: AgentConfig, on_change: Callable[[Snapshot], None] | None = None
) -> AsyncIterator[Agent]:
    agent = Agent(config, on_change)
    await agent.start()
    try:
        yield agent
    finally:
        await agent.stop()


async def until(agent: Agent, reached: Callable[[Snapshot], bool]) -> Snapshot:
    async with asyncio.timeout(PATIENCE_S):
        async for snapshot in agent.beats(0.05):
            if reached(snapshot):
                return snapshot
    raise AssertionError("it has no end")


async def at_work(agent: Agent, config: AgentConfig) -> asyncio.Task[bytes]:
    """A request that echo-a works on from now: as long as it is held, if it is."""
    mark = mark_of(config.worker.model_repositories[0], "echo-a")
    mark.unlink(missing_ok=True)
    slow = asyncio.create_task(ask(agent.grpc_address, "echo-a"))
    async with asyncio.timeout(PATIENCE_S):
        while not mark.exists():
            await asyncio.sleep(0.01)
    return slow


@contextmanager
def held(config: AgentConfig) -> Iterator[None]:
    """echo-a answers nothing meanwhile."""
    hold = hold_of(config.worker.model_repositories[0], "echo-a")
    hold.touch()
    try:
        yield
    finally:
        hold.unlink()


async def test_the_least_recently_used_goes_where_three_models_have_room_for_two(
    config: AgentConfig,
) -> None:
    async with running(config) as agent:
        each = agent.snapshot().models[0].memory_bytes
        assert each is not None

    two = replace(config, memory_budget_bytes=int(2.5 * each))
    async with running(two) as agent:
        await agent.load("echo-b")
        await ask(agent.grpc_address, "echo-b")
        await asyncio.sleep(0.3)
        await ask(agent.grpc_address, "echo-a")
        await asyncio.sleep(0.3)

        await agent.load("echo-c")

        assert loaded(agent.snapshot()) == ["echo-a", "echo-c"]
        assert await ask(agent.grpc_address, "echo-c") == b"hello"
        with pytest.raises(InferenceServerException, match="unknown model"):
            await ask(agent.grpc_address, "echo-b")
        await agent.load("echo-b")
        assert loaded(agent.snapshot()) == ["echo-b", "echo-c"]


async def test_what_is_pinned_stays_and_what_then_finds_no_room_is_refused(
    config: AgentConfig,
) -> None:
    async with running(config) as agent:
        each = agent.snapshot().models[0].memory_bytes
        assert each is not None

    one = replace(config, memory_budget_bytes=int(1.5 * each), pinned=frozenset({"echo-a"}))
    async with running(one) as agent:
        with pytest.raises(NoRoom, match=r"no room for echo-b: .* and echo-a cannot go"):
            await agent.load("echo-b")

        snapshot = agent.snapshot()
        assert loaded(snapshot) == ["echo-a"]
        assert "no room" in next(m.error for m in snapshot.models if m.name == "echo-b")
        assert await ask(agent.grpc_address, "echo-a") == b"hello"


async def test_loading_and_unloading_beside_them_disturbs_no_request(config: AgentConfig) -> None:
    async with running(config) as agent, InferenceServerClient(agent.grpc_address) as client:
        answers: list[bytes] = []

        async def keep_asking() -> None:
            for number in range(10**6):
                answers.append(await echo(client, "echo-a", b"%d" % number))

        asking = asyncio.create_task(keep_asking())
        await asyncio.gather(agent.load("echo-b"), agent.load("echo-c"))
        await agent.unload("echo-b")
        with pytest.raises(UnknownModel):
            await agent.load("nowhere")
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

        assert len(answers) > 100
        assert answers == [b"%d" % number for number in range(len(answers))]
        assert loaded(agent.snapshot()) == ["echo-a", "echo-c"]


async def test_loads_of_one_model_are_one(config: AgentConfig) -> None:
    doing: list[str] = []

    def note(snapshot: Snapshot) -> None:
        doing.extend(model.doing for model in snapshot.models if model.name == "echo-b")

    async with running(config, note) as agent:
        await asyncio.gather(*(agent.load("echo-b") for _ in range(5)))
        await agent.load("echo-b")

        told = [what for what, _ in itertools.groupby(doing) if what]
        assert told == ["loading"]
        assert loaded(agent.snapshot()) == ["echo-a", "echo-b"]


async def test_an_unload_waits_for_what_was_asked_and_a_load_for_the_unload(
    config: AgentConfig,
) -> None:
    async with running(config) as agent:
        with held(config):
            slow = await at_work(agent, config)
            unloading = asyncio.create_task(agent.unload("echo-a"))
            await until(agent, lambda s: s.models[0].doing == "unloading")
            loading = asyncio.create_task(agent.load("echo-a"))

            assert loaded(agent.snapshot()) == []
            assert not slow.done()
        assert await slow == b"hello"
        await unloading
        await loading
        assert await ask(agent.grpc_address, "echo-a") == b"hello"


async def test_one_that_will_not_go_is_told_and_goes_when_it_is_done(config: AgentConfig) -> None:
    async with running(replace(config, drain_timeout_s=0.3)) as agent:
        with held(config):
            slow = await at_work(agent, config)

            with pytest.raises(NotNow, match="echo-a still works on what it was asked"):
                await agent.unload("echo-a")
            with pytest.raises(NotNow, match="still works"):
                await agent.load("echo-a")

        await slow
        await until(agent, lambda s: not s.models[0].doing)
        await agent.load("echo-a")
        assert await ask(agent.grpc_address, "echo-a") == b"hello"


async def test_a_model_that_does_not_load_leaves_the_rest_serving(config: AgentConfig) -> None:
    broken = config.worker.model_repositories[0] / "echo-b" / "1" / "model.py"
    good = broken.read_text()
    broken.write_text("raise RuntimeError('the weights are gone')")
    async with running(config) as agent:
        with pytest.raises(WorkerError, match=r"could not load echo-b: .*the weights are gone$"):
            await agent.load("echo-b")

        status = next(m for m in agent.snapshot().models if m.name == "echo-b")
        assert "the weights are gone" in status.error
        assert not status.endpoint
        assert await ask(agent.grpc_address, "echo-a") == b"hello"

        broken.write_text(good)
        await agent.load("echo-b")
        assert await ask(agent.grpc_address, "echo-b") == b"hello"
        assert loaded(agent.snapshot()) == ["echo-a", "echo-b"]


async def test_a_killed_triton_comes_back_with_what_was_loaded_and_without_what_was_not(
    config: AgentConfig,
) -> None:
    async with running(config) as agent:
        await agent.load("echo-b")
        await agent.unload("echo-a")
        os.kill(triton_of(agent), signal.SIGKILL)
        await until(agent, lambda s: s.state is AgentState.DEGRADED)
        assert loaded(agent.snapshot()) == []

        snapshot = await until(agent, lambda s: s.state is AgentState.READY)

        assert snapshot.restarts == 1
        assert loaded(snapshot) == ["echo-b"]
        assert await ask(agent.grpc_address, "echo-b") == b"hello"
        with pytest.raises(InferenceServerException, match="unknown model"):
            await ask(agent.grpc_address, "echo-a")


async def test_a_model_that_kills_triton_while_it_is_loaded_is_not_loaded_again(
    config: AgentConfig,
) -> None:
    deadly = config.worker.model_repositories[0] / "echo-b" / "1" / "model.py"
    deadly.write_text("import os, signal; os.kill(os.getppid(), signal.SIGKILL)")
    async with running(config) as agent:
        with pytest.raises(WorkerError, match="Triton went down before it had loaded echo-b"):
            await agent.load("echo-b")

        snapshot = await until(agent, lambda s: s.restarts == 1 and s.state is AgentState.READY)

        assert loaded(snapshot) == ["echo-a"]
        assert await ask(agent.grpc_address, "echo-a") == b"hello"


async def test_a_drain_takes_nothing_new_and_waits_for_what_is_under_way(
    config: AgentConfig,
) -> None:
    async with running(config) as agent:
        with held(config):
            slow = await at_work(agent, config)
            draining = asyncio.create_task(agent.drain())
            await asyncio.sleep(0)

            assert agent.snapshot().state is AgentState.DEGRADED
            assert agent.snapshot().detail == "draining"
            with pytest.raises(NotNow, match="being drained"):
                await agent.load("echo-b")
            assert not draining.done()
        assert await draining
        assert slow.done()
        assert await slow == b"hello"


async def test_a_drain_that_overruns_says_so(config: AgentConfig) -> None:
    async with running(replace(config, drain_timeout_s=0.2)) as agent:
        with held(config):
            slow = await at_work(agent, config)

            assert not await agent.drain()
            assert not slow.done()
        while not await agent.drain():  # asked again, it waits again
            pass
        assert slow.done()
        assert await slow == b"hello"


KEEPS = """

class TritonPythonModel(TritonPythonModel):
    def execute(self, requests):
        open({mark!r}, "w").close()
        self.kept = [request.get_response_sender() for request in requests]
"""
"""Never answers, and says that it has nothing to do: as it looks when Triton loses track."""


async def test_a_drain_goes_by_the_engine_where_triton_holds_a_model_for_nobody(
    config: AgentConfig,
) -> None:
    root = config.worker.model_repositories[0]
    code = root / "echo-a" / "1" / "model.py"
    code.write_text(code.read_text() + KEEPS.format(mark=str(mark_of(root, "echo-a"))))
    slots = replace(config.worker, model_parameters={"echo-a": {"delay_ms": "1"}})
    async with running(replace(config, worker=slots, drain_timeout_s=0.5)) as agent:
        lost = await at_work(agent, config)

        assert await agent.drain()

        assert agent.snapshot().models[0].doing == "unloading"
    with pytest.raises(InferenceServerException):
        await lost


async def test_a_backend_that_dies_as_its_worker_drains_is_not_waited_for(
    config: AgentConfig,
) -> None:
    # What takes its time in a slot is answered by nobody else, once its backend is gone.
    slots = replace(config.worker, model_parameters={"echo-a": {"delay_ms": "3600000"}})
    async with running(replace(config, worker=slots, drain_timeout_s=0.2)) as agent:
        lost = await at_work(agent, config)
        assert not await agent.drain()
        assert agent.snapshot().models[0].doing == "unloading"

        (backend,) = live_stubs(triton_of(agent))
        os.kill(backend, signal.SIGKILL)

        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(InferenceServerException):  # and not after all the time it has
                await lost
            while not await agent.drain():
                pass


async def test_what_nobody_uses_is_unloaded_after_a_while(config: AgentConfig) -> None:
    idle = replace(config, unload_after_s=1.0, pinned=frozenset({"echo-a"}))
    async with running(idle) as agent:
        await agent.load("echo-b")

        await until(agent, lambda s: loaded(s) == ["echo-a"])


async def test_a_heartbeat_tells_memory_and_that_something_is_under_way(
    config: AgentConfig,
) -> None:
    async with running(config) as agent:
        with held(config):
            # What comes together is one batch, of which nothing waits.
            asking = [await at_work(agent, config)]
            asking += [asyncio.create_task(ask(agent.grpc_address, "echo-a"))]

            snapshot = await until(agent, lambda s: s.state is AgentState.INFERRING)

        assert snapshot.queue_length > 0
        assert snapshot.memory_bytes is not None
        assert snapshot.models[0].memory_bytes is not None
        assert snapshot.memory_bytes > snapshot.models[0].memory_bytes > 10_000_000
        assert snapshot.free_memory_bytes is not None
        assert snapshot.gpu_utilisation is None
        await asyncio.gather(*asking)
        await until(agent, lambda s: s.state is AgentState.READY)


def triton_of(agent: Agent) -> int:
    """The process that serves an agent's models; a private matter, for who wants to kill it."""
    pid = agent.snapshot().pid
    assert pid is not None
    return pid


async def test_a_model_that_is_up_too_late_goes_by_itself_and_may_be_loaded_anew(
    config: AgentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, code = tmp_path / "gate", tmp_path / "models" / "echo-b" / "1" / "model.py"
    code.write_text(code.read_text() + WAITS.format(gate=str(gate)))
    async with running(replace(config, drain_timeout_s=0.3)) as agent:
        with monkeypatch.context() as patch:
            patch.setattr(agent._triton, "_load_timeout_s", 0.5)
            with pytest.raises(NoAnswer, match="has not loaded echo-b within"):
                await agent.load("echo-b")
        with pytest.raises(NotNow, match="Triton still loads echo-b"):
            await agent.load("echo-b")
        await agent.load("echo-c")  # it holds up no other

        gate.touch()
        await until(agent, lambda snapshot: all(not model.doing for model in snapshot.models))
        assert sorted(loaded(agent.snapshot())) == ["echo-a", "echo-c"]
        with pytest.raises(InferenceServerException):
            await ask(agent.grpc_address, "echo-b")
        await agent.load("echo-b")
        assert await ask(agent.grpc_address, "echo-b") == b"hello"
