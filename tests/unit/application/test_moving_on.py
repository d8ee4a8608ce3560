"""A worker that dies, hangs or is away before the first part: the request moves on to another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import ClassVar

import pytest

from synapse.application.attempts import Attempts
from synapse.domain.errors import (
    EngineError,
    EngineLost,
    EngineUnavailable,
    InvalidInput,
    Unavailable,
)
from synapse.domain.pool import Pool
from synapse.domain.retry import RetryPolicy

GPU, CPU = Pool("gpu", "gpu"), Pool("cpu", "cpu")

Behaviour = Sequence[str | EngineError]


@dataclass
class Crew:
    """Two workers in each pool, `gpu-1` to `cpu-2`; those not named answer `ok`.

    A request is answered by `way`: "run" in parts, "first" as a whole.
    """

    way: ClassVar[str] = "run"
    does: dict[str, list[Behaviour]] = field(default_factory=dict)
    called: list[str] = field(default_factory=list)
    slept_s: list[float] = field(default_factory=list)
    away: set[str] = field(default_factory=set)

    async def place(self, pool: Pool, avoid: Collection[str]) -> Pool:
        for number in (1, 2):
            worker = f"{pool.name}-{number}"
            if worker not in avoid and worker not in self.away:
                return replace(pool, endpoint="127.0.0.1:1", worker=worker)
        raise EngineUnavailable(f"nobody of {pool.name} is left")

    async def call(self, pool: Pool) -> AsyncGenerator[str, None]:
        self.called.append(pool.worker)
        turns = self.does.get(pool.worker, [])
        for step in turns.pop(0) if turns else ["ok"]:
            await asyncio.sleep(0)
            if isinstance(step, EngineError):
                raise step
            yield step

    async def call_whole(self, pool: Pool) -> str:
        return "".join([part async for part in self.call(pool)])

    async def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)

    async def answer(self, *pools: Pool, timeout_s: float = 60.0) -> list[tuple[str, str]]:
        deadline_at = asyncio.get_running_loop().time() + timeout_s
        retry = RetryPolicy(base_s=0.1, max_s=1.0)
        attempts = Attempts(pools, deadline_at, retry, self.sleep, lambda: 0.5, self.place)
        if self.way == "first":
            pool, part = await attempts.first(self.call_whole)
            return [(pool.worker, part)]
        async with aclosing(attempts.run(self.call)) as parts:
            return [(pool.worker, part) async for pool, part in parts]


@pytest.fixture(autouse=True, params=["run", "first"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes as a whole moves on as what comes in parts does."""
    monkeypatch.setattr(Crew, "way", request.param)


AWAY, LOST = EngineUnavailable("it cannot be reached"), EngineLost("it went down")


async def test_another_worker_of_the_pool_is_asked_before_the_next_pool() -> None:
    crew = Crew({"gpu-1": [[AWAY]]})

    assert await crew.answer(GPU, CPU) == [("gpu-2", "ok")]
    assert crew.called == ["gpu-1", "gpu-2"]
    assert crew.slept_s == []


async def test_every_worker_is_asked_once_before_there_is_a_pause() -> None:
    away: list[Behaviour] = [[AWAY]]
    crew = Crew({name: list(away) for name in ("gpu-1", "gpu-2", "cpu-1", "cpu-2")})

    assert await crew.answer(GPU, CPU) == [("gpu-1", "ok")]
    assert crew.called == ["gpu-1", "gpu-2", "cpu-1", "cpu-2", "gpu-1"]
    assert crew.slept_s == [0.05]


async def test_a_request_whose_worker_went_down_before_its_first_part_is_tried_elsewhere() -> None:
    crew = Crew({"gpu-1": [[LOST]]})

    assert await crew.answer(GPU) == [("gpu-2", "ok")]


async def test_a_request_takes_no_more_than_two_workers_with_it() -> None:
    crew = Crew({"gpu-1": [[LOST]], "gpu-2": [[LOST]]})

    with pytest.raises(EngineLost):
        await crew.answer(GPU, CPU)

    assert crew.called == ["gpu-1", "gpu-2"]


@pytest.mark.parametrize("way", ["run"], indirect=True)
async def test_what_was_begun_is_not_begun_again() -> None:
    crew = Crew({"gpu-1": [["a", LOST]]})

    with pytest.raises(EngineLost):
        await crew.answer(GPU, CPU)

    assert crew.called == ["gpu-1"]


async def test_a_refusal_is_final() -> None:
    crew = Crew({"gpu-1": [[InvalidInput("too long")]]})

    with pytest.raises(InvalidInput):
        await crew.answer(GPU, CPU)

    assert crew.called == ["gpu-1"]


async def test_a_pool_without_workers_is_passed_over_and_asked_again_later() -> None:
    crew = Crew({"cpu-1": [[AWAY]], "cpu-2": [[AWAY]]}, away={"gpu-1", "gpu-2"})

    assert await crew.answer(GPU, CPU) == [("cpu-1", "ok")]
    assert crew.called == ["cpu-1", "cpu-2", "cpu-1"]


async def test_when_the_time_is_up_the_worker_s_own_words_are_told() -> None:
    crew = Crew({"cpu-1": [[AWAY]], "cpu-2": [[AWAY]]})

    with pytest.raises(Unavailable, match="it cannot be reached") as caught:
        await crew.answer(CPU, timeout_s=0.01)
    assert caught.value.code == "engine_unavailable"

    crew = Crew(away={"cpu-1", "cpu-2"})
    with pytest.raises(Unavailable, match="nobody of cpu is left"):
        await crew.answer(CPU, timeout_s=0.01)
