"""Which models an agent loads and unloads, in which order, and what is left when that fails."""

import asyncio
import errno
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from synapse_worker.agent import triton_models
from synapse_worker.agent.errors import NoAnswer, NoRoom, NotNow, TooLarge
from synapse_worker.agent.folder import ModelFolder
from synapse_worker.agent.known import Doing
from synapse_worker.agent.models import MAX_FAILED
from synapse_worker.agent.readings import ModelReading, Readings
from synapse_worker.agent.shelf import Shelf, Taken
from synapse_worker.agent.triton_models import TritonModels
from synapse_worker.cache import (
    CachedModel,
    CacheLevel,
    ModelCache,
    Progress,
    ProgressListener,
)
from synapse_worker.config import WorkerConfig
from synapse_worker.errors import UnknownModel, WorkerError
from synapse_worker.supervisor import Supervisor, WorkerState
from tests.patience import PATIENCE_S
from tests.unit.worker.agents import MIB, FakeTriton, World, model_folder


async def test_the_least_recently_used_makes_room(tmp_path: Path) -> None:
    world = World(tmp_path, memory_budget_bytes=25 * MIB)
    await world.models.load("a", None)
    await world.models.load("b", None)
    world.use("a", at=2e9)

    await world.models.load("c", None)

    # Nobody had said how much c takes: it is measured, then room is made.
    assert world.triton.calls == ["load a", "load b", "load c", "unload b"]
    assert world.models.loaded == ["a", "c"]

    world.triton.calls.clear()
    world.use("c", at=3e9)
    await world.models.load("b", None)

    assert world.triton.calls == ["unload a", "load b"], "what b takes is known by now"


async def test_what_work_last_asked_for_counts_more_than_what_probes_have_used(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, memory_budget_bytes=25 * MIB)
    await world.models.load("a", None)
    await world.models.load("b", None)
    world.use("b", at=2e9)  # as a probe does

    world.models.told_uses({"a": 1e9})
    await world.models.load("c", None)

    assert world.models.loaded == ["a", "c"], "nobody ever asked for b"


async def test_neither_the_busy_nor_the_pinned_makes_room(tmp_path: Path) -> None:
    world = World(tmp_path, memory_budget_bytes=25 * MIB, pinned=frozenset("a"))
    await world.models.load("a", None)
    await world.models.load("b", None)
    world.triton.busy = {"b"}

    with pytest.raises(NoRoom, match="no room for c: it takes 10 of 25 MiB, and a, b cannot go"):
        await world.models.load("c", None)

    assert world.models.loaded == ["a", "b"]
    assert world.triton.loaded == {"a", "b"}


async def test_what_is_to_be_kept_makes_no_room(tmp_path: Path) -> None:
    world = World(tmp_path, memory_budget_bytes=25 * MIB)
    await world.models.load("a", None)
    await world.models.load("b", None)

    with pytest.raises(NoRoom, match="and a, b cannot go"):
        await world.models.load("c", None, keep={"a", "b"})
    assert world.models.loaded == ["a", "b"]

    await world.models.load("c", None, keep={"a"})
    assert world.models.loaded == ["a", "c"]


async def test_a_busy_one_that_is_to_yield_makes_room_after_the_idle(tmp_path: Path) -> None:
    world = World(tmp_path, "abcd", memory_budget_bytes=25 * MIB)
    await world.models.load("a", None)
    await world.models.load("b", None)
    world.triton.busy = {"a"}
    world.models.told_uses({"a": 1e9, "b": 2e9})

    await world.models.load("c", None, yielding={"a"})
    assert world.models.loaded == ["a", "c"], "b had nothing to do"

    with pytest.raises(NoRoom, match="and a, c cannot go"):
        await world.models.load("d", None, keep={"a", "c"})
    await world.models.load("d", None, keep={"c"}, yielding={"a"})
    assert world.models.loaded == ["c", "d"]


async def test_one_larger_than_the_budget_is_taken_out_again(tmp_path: Path) -> None:
    world = World(tmp_path, memory_budget_bytes=25 * MIB)
    world.sizes["c"] = 30 * MIB
    await world.models.load("a", None)

    with pytest.raises(TooLarge, match="takes 30 MiB, and the memory budget is 25 MiB"):
        await world.models.load("c", None)

    assert world.triton.loaded == {"a"}
    world.triton.calls.clear()
    with pytest.raises(TooLarge):
        await world.models.load("c", None)
    assert world.triton.calls == [], "once is enough"


async def test_one_that_grew_while_it_was_used_fits_again_as_it_did_at_first(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, memory_budget_bytes=25 * MIB)
    world.sizes["a"] = 20 * MIB
    await world.models.load("a", None)
    world.sizes["a"] = 26 * MIB
    world.models.measure(world.bytes_of)
    assert world.models.all()[0].memory_bytes == 26 * MIB, "so much others cannot have"
    await world.models.load("b", None)
    assert world.models.loaded == ["b"]

    world.sizes["a"] = 20 * MIB
    await world.models.load("a", None)

    assert world.models.loaded == ["a"]


async def test_a_load_that_fails_says_why_and_may_be_tried_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.triton.broken = {"a"}

    with pytest.raises(WorkerError, match="it is broken"):
        await world.models.load("a", None)

    known = world.models.all()[0]
    assert (known.is_loaded, known.doing) == (False, "")
    assert "it is broken" in known.error
    assert list(world.folder.path.iterdir()) == []
    world.triton.broken = set()
    await world.models.load("a", None)
    assert not known.error


async def test_a_disk_that_takes_nothing_is_told_as_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "symlink_to", full)
        with pytest.raises(WorkerError, match="No space left on device"):
            await world.models.load("a", None)

    known = world.models.all()[0]
    assert "No space left on device" in known.error
    assert (known.is_loaded, known.takes_memory, known.doing) == (False, False, "")
    await world.models.load("a", None)
    assert world.models.loaded == ["a"]


async def test_a_new_version_takes_the_place_of_the_old_or_the_old_comes_back(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    await world.models.load("a", None)
    with pytest.raises(UnknownModel, match="no version '2' of a here"):
        await world.models.load("a", "2")
    model_folder(tmp_path / "repository", "x")  # a repository is read anew each time
    (tmp_path / "repository" / "a" / "2").mkdir()

    await world.models.load("a", "2")

    assert world.models.all()[0].version == "2"
    assert world.triton.calls == ["load a", "unload a", "load a"]

    (tmp_path / "repository" / "a" / "3").mkdir()
    fails = iter([WorkerError("too new")])
    load = world.triton.load

    async def fail_once(model: str) -> None:
        for error in fails:
            raise error
        await load(model)

    world.triton.load = fail_once  # type: ignore[method-assign]
    with pytest.raises(WorkerError, match="too new"):
        await world.models.load("a", "3")
    assert world.models.all()[0].version == "2"
    assert world.triton.loaded == {"a"}


async def test_a_long_download_holds_up_no_other_load_and_is_over_when_it_waits_for_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, take, load = World(tmp_path), Shelf.take, FakeTriton.load
    has_come, is_loaded = asyncio.Event(), asyncio.Event()

    async def slow_take(
        shelf: Shelf, model: str, version: str | None, on_progress: ProgressListener | None = None
    ) -> Taken:
        if model == "a" and on_progress is not None:
            on_progress(Progress(1, 2))
            await has_come.wait()
        return await take(shelf, model, version, on_progress)

    async def slow_load(triton: FakeTriton, model: str) -> None:
        if model == "c":
            await is_loaded.wait()
        await load(triton, model)

    def doing() -> list[tuple[str, Doing, float | None]]:
        return [(known.name, known.doing, known.progress) for known in world.models.all()]

    monkeypatch.setattr(Shelf, "take", slow_take)
    monkeypatch.setattr(FakeTriton, "load", slow_load)
    first = asyncio.create_task(world.models.load("a", None))
    await asyncio.sleep(0.01)

    await world.models.load("b", None)
    assert doing() == [("a", Doing.DOWNLOADING, 0.5), ("b", Doing.NOTHING, None)]

    last = asyncio.create_task(world.models.load("c", None))
    await asyncio.sleep(0.01)
    has_come.set()
    await asyncio.sleep(0.01)
    assert doing()[0] == ("a", Doing.LOADING, None)

    is_loaded.set()
    await asyncio.gather(first, last)
    assert world.triton.calls == ["load b", "load c", "load a"]


async def test_who_no_longer_waits_for_a_load_does_not_stop_it_for_others(tmp_path: Path) -> None:
    world = World(tmp_path)
    go = asyncio.Event()
    load = world.triton.load

    async def slow(model: str) -> None:
        await go.wait()
        await load(model)

    world.triton.load = slow  # type: ignore[method-assign]
    first = asyncio.create_task(world.models.load("a", None))
    second = asyncio.create_task(world.models.load("a", None))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    go.set()

    await second

    assert world.triton.calls == ["load a"]


async def test_who_waits_for_a_load_that_is_broken_off_is_told_so(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def never(model: str) -> None:
        await asyncio.Event().wait()

    world.triton.load = never  # type: ignore[method-assign]
    waiting = [asyncio.create_task(world.models.load("a", None)) for _ in range(3)]
    await asyncio.sleep(0.01)
    waiting[2].cancel()
    await world.models.empty()

    for told in waiting[:2]:
        with pytest.raises(NotNow, match="a was broken off"):
            await told
    with pytest.raises(asyncio.CancelledError):
        await waiting[2]


@pytest.mark.parametrize("error", [TimeoutError(), ConnectionResetError("gone")])
async def test_a_call_that_broke_off_may_have_been_heeded(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(triton_models, "http_call", broken)
    up = SimpleNamespace(state=WorkerState.READY)
    triton = TritonModels(cast(Supervisor, SimpleNamespace(status=up, http_address="a:1")), 1.0)

    with pytest.raises(NoAnswer):
        await triton.load("a")
    with pytest.raises(NoAnswer):
        await triton.unload("a")


@pytest.mark.parametrize(
    ("mine", "other", "is_given_up"),
    [
        (ModelReading(tells_running=True), ModelReading(), True),
        (ModelReading(tells_running=True), ModelReading(running=1), False),
        (ModelReading(tells_running=True, running=1), ModelReading(), False),
        (ModelReading(), ModelReading(), False),
    ],
)
async def test_a_triton_that_keeps_a_model_for_nobody_is_started_again_when_it_is_quiet(
    mine: ModelReading, other: ModelReading, is_given_up: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, troubles = iter(range(0, 3000, 10)), list[WorkerError]()
    supervisor = SimpleNamespace(
        status=SimpleNamespace(state=WorkerState.READY), http_address="a:1"
    )

    def give_up(trouble: WorkerError) -> None:
        troubles.append(trouble)
        supervisor.status.state = WorkerState.RESTARTING

    async def states(*_: object) -> dict[str, set[str]]:
        return {"a": {"UNLOADING"}} if looks.pop() else {}

    async def readings(*_: object) -> Readings:
        return Readings({"a": mine, "b": other})

    looks = [False, *[True] * 20]
    supervisor.give_up = give_up
    monkeypatch.setattr(triton_models, "model_states", states)
    monkeypatch.setattr(triton_models, "UNLOADING_POLL_S", 0.0)
    monkeypatch.setattr(f"{triton_models.__name__}.monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(TritonModels, "readings", readings)

    await TritonModels(cast(Supervisor, supervisor), 1.0).wait_unloaded("a")

    assert [each.cause for each in troubles] == ["Triton does not let go of a"] * is_given_up
    assert bool(looks) == is_given_up


async def test_one_that_does_not_go_keeps_its_memory_and_is_not_loaded_over(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, memory_budget_bytes=15 * MIB)
    await world.models.load("a", None)
    done = asyncio.Event()

    async def wait(model: str) -> None:
        if model == "a":
            await done.wait()

    world.triton.wait_unloaded = wait  # type: ignore[method-assign]
    with pytest.raises(NotNow, match="a still works on what it was asked"):
        await world.models.unload("a")
    with pytest.raises(NotNow):
        await world.models.load("a", None)
    with pytest.raises(NoRoom):
        await world.models.load("b", None)

    done.set()
    await asyncio.sleep(0.01)
    await world.models.load("a", None)
    assert world.models.loaded == ["a"]


@pytest.mark.parametrize("budget_mib", [25, 15])
async def test_one_that_is_unloaded_and_still_works_holds_up_who_needs_its_room_alone(
    tmp_path: Path, budget_mib: int
) -> None:
    world = World(tmp_path, memory_budget_bytes=budget_mib * MIB, drain_timeout_s=PATIENCE_S)
    await world.models.load("b", None)  # so that it is known what it takes
    await world.models.unload("b")
    await world.models.load("a", None)
    done = asyncio.Event()

    async def wait(model: str) -> None:
        if model == "a":
            await done.wait()

    world.triton.wait_unloaded = wait  # type: ignore[method-assign]
    unloading = asyncio.create_task(world.models.unload("a"))
    await asyncio.sleep(0.01)
    loading = asyncio.create_task(world.models.load("b", None))
    if budget_mib == 25:
        async with asyncio.timeout(PATIENCE_S / 2):
            await loading
        assert not unloading.done()
    else:
        await asyncio.sleep(0.01)
        assert not loading.done(), "it has room once the other has gone"

    done.set()
    await asyncio.gather(unloading, loading)
    assert world.models.loaded == ["b"]


async def test_an_old_version_that_does_not_go_keeps_its_files_until_it_has_gone(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    await world.models.load("a", None)
    (tmp_path / "repository" / "a" / "2").mkdir()
    done = asyncio.Event()

    async def wait(model: str) -> None:
        assert model == "a"
        await done.wait()

    world.triton.wait_unloaded = wait  # type: ignore[method-assign]
    with pytest.raises(NotNow, match="a still works on what it was asked"):
        await world.models.load("a", "2")
    known = world.models.all()[0]
    assert known.taken is not None
    assert (world.folder.path / "a").exists()

    done.set()
    await asyncio.sleep(0.01)
    assert not (world.folder.path / "a").exists()
    await world.models.load("a", "2")
    assert (known.version, known.is_loaded) == ("2", True)


async def test_a_load_that_overran_and_came_up_is_out_before_the_next(tmp_path: Path) -> None:
    world = World(tmp_path)
    load, wait_unloaded = world.triton.load, world.triton.wait_unloaded
    done = asyncio.Event()

    async def overrun(model: str) -> None:
        await load(model)
        raise NoAnswer(f"Triton has not loaded {model} within 1 s")

    async def wait(model: str) -> None:
        assert model == "a"
        await done.wait()
        await wait_unloaded(model)

    world.triton.load = overrun  # type: ignore[method-assign]
    world.triton.wait_unloaded = wait  # type: ignore[method-assign]
    with pytest.raises(NoAnswer, match="within 1 s"):
        await world.models.load("a", None)
    with pytest.raises(NotNow, match="Triton still loads a"):
        await world.models.load("a", None)
    known = world.models.all()[0]
    assert (known.is_loaded, known.takes_memory, known.memory_bytes) == (False, True, 10 * MIB)
    assert (world.folder.path / "a").exists(), "Triton reads it"
    assert world.triton.calls == ["load a"], "a call now would only wait for that"

    done.set()
    world.triton.load = load  # type: ignore[method-assign]
    await asyncio.sleep(0.01)
    await world.models.load("a", None)
    assert world.models.loaded == ["a"]
    assert world.triton.calls == ["load a", "unload a", "load a"]


async def test_one_that_overran_holds_up_nobody(tmp_path: Path) -> None:
    world = World(tmp_path, drain_timeout_s=PATIENCE_S)
    load = world.triton.load

    async def overrun(model: str) -> None:
        if model == "a":
            raise NoAnswer(f"Triton has not loaded {model} within 1 s")
        await load(model)

    async def never(model: str) -> None:
        await asyncio.Event().wait()

    world.triton.load = overrun  # type: ignore[method-assign]
    world.triton.wait_unloaded = never  # type: ignore[method-assign]
    with pytest.raises(NoAnswer):
        await world.models.load("a", None)

    async with asyncio.timeout(PATIENCE_S / 2):
        with pytest.raises(NotNow):
            await world.models.load("a", None)
        await world.models.load("b", None)

    assert world.models.loaded == ["b"]
    await world.models.close()


async def test_an_unload_that_is_answered_too_late_is_waited_for_all_the_same(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, memory_budget_bytes=25 * MIB)
    await world.models.load("a", None)
    await world.models.load("b", None)
    unload = world.triton.unload

    async def slow(model: str) -> None:
        await unload(model)
        raise NoAnswer(f"Triton has not unloaded {model} within 5 s")

    world.triton.unload = slow  # type: ignore[method-assign]
    await world.models.load("c", None)

    assert set(world.models.loaded) == world.triton.loaded == {"b", "c"}
    world.triton.unload = unload  # type: ignore[method-assign]
    await world.models.load("a", None)
    assert "a" in world.triton.loaded


async def test_nothing_is_unloaded_from_a_triton_that_is_down(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.models.load("a", None)
    world.triton.is_running = False

    with pytest.raises(NotNow, match="a is not up"):
        await world.models.unload("a")

    assert world.models.loaded == ["a"], "it comes back with Triton"


async def test_names_that_nobody_knows_do_not_pile_up(tmp_path: Path) -> None:
    world = World(tmp_path)
    for number in range(3 * MAX_FAILED):
        with pytest.raises(UnknownModel, match="Choose from: a, b, c"):
            await world.models.load(f"x{number}", None)

    assert len(world.models.all()) <= MAX_FAILED + 2
    with pytest.raises(WorkerError, match="is not a model name"):
        await world.models.load("../etc", None)
    with pytest.raises(UnknownModel):
        await world.models.unload("y")


async def test_use_is_seen_by_what_has_ended_and_by_what_is_under_way(tmp_path: Path) -> None:
    world = World(tmp_path, unload_after_s=10.0)
    await world.models.load("a", None)
    world.use("a", at=0.0)
    assert world.models.overdue(Readings(), now=11.0) == ["a"]

    world.models.note(Readings({"a": ModelReading(ended=3)}), now=5.0)
    assert world.models.overdue(Readings(), now=11.0) == []
    world.models.note(Readings({"a": ModelReading(ended=3)}), now=12.0)
    assert world.models.overdue(Readings(), now=16.0) == ["a"]
    assert world.models.overdue(Readings({"a": ModelReading(running=1)}), now=16.0) == []


async def test_the_shelf_knows_what_lies_in_the_repositories(tmp_path: Path) -> None:
    world = World(tmp_path)
    (tmp_path / "repository" / "b" / "11").mkdir()

    levels = await Shelf(world.config.worker, None).levels()

    assert {name: version for name, (version, _) in levels.items()} == {
        "a": "1",
        "b": "11",
        "c": "1",
    }


async def test_of_several_cached_versions_the_nearest_is_told(tmp_path: Path) -> None:
    def cached(version: str, level: CacheLevel, last_used_at: float) -> CachedModel:
        return CachedModel("m", version, level, 1, 1, last_used_at, in_use=False, pinned=False)

    class Cache:
        async def models(self) -> list[CachedModel]:
            return [
                cached("1", CacheLevel.NVME_CACHED, 9.0),
                cached("2", CacheLevel.DRAM_CACHED, 1.0),
                cached("3", CacheLevel.DRAM_CACHED, 2.0),
            ]

    worker = WorkerConfig(models=(), venv=None, model_repositories=(tmp_path,))

    levels = await Shelf(worker, cast(ModelCache, Cache())).levels()

    assert levels == {"m": ("3", CacheLevel.DRAM_CACHED)}


def test_folders_of_the_dead_are_swept_up_and_those_of_the_living_kept(tmp_path: Path) -> None:
    living, dead = ModelFolder(tmp_path), ModelFolder(tmp_path)
    living.open()
    dead.open()
    # As a killed process leaves it: the folder stays, the lock does not.
    (dead.path.parent / "lock").rename(tmp_path / "elsewhere")
    (dead.path.parent / "lock").touch()
    source = model_folder(tmp_path / "repository", "a")

    living.put("a", source)
    living.put("a", source)
    newcomer = ModelFolder(tmp_path)
    newcomer.open()

    assert (living.path / "a" / "config.pbtxt").is_file()
    assert not dead.path.exists()
    living.remove("a")
    living.remove("a")
    assert source.is_dir()
    for folder in (living, newcomer, dead):
        folder.close()
    assert list((tmp_path / "agents").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(WorkerError, match="Cannot write"):
        ModelFolder(tmp_path / "file").open()


def test_a_worker_of_an_agent_may_start_with_nothing() -> None:
    assert WorkerConfig(models=(), venv=None).models == ()
