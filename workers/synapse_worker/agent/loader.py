"""Puts models into Triton and takes them out, within the memory there is for them."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Sequence

from synapse_worker.agent.config import AgentConfig
from synapse_worker.agent.errors import NoAnswer, NoRoom, NotNow, TooLarge
from synapse_worker.agent.folder import ModelFolder
from synapse_worker.agent.known import Doing, Known, names
from synapse_worker.agent.shelf import Taken
from synapse_worker.agent.triton_models import TritonModels
from synapse_worker.cache import CacheLevel, Held
from synapse_worker.cache.eviction import room_for
from synapse_worker.errors import WorkerError

MIB = 1 << 20


class Loader:
    """One change at a time: what is loaded side by side could outgrow the memory."""

    def __init__(
        self,
        config: AgentConfig,
        folder: ModelFolder,
        triton: TritonModels,
        measure: Callable[[str], int],
        changed: Callable[[], None],
    ) -> None:
        """`measure` tells the memory of a loaded model; `changed` is called after every step."""
        self._config = config
        self._folder = folder
        self._triton = triton
        self._measure = measure
        self._changed = changed
        self._turn = asyncio.Lock()

    async def load(
        self,
        known: Known,
        taken: Taken,
        models: Sequence[Known],
        keep: Collection[str] = (),
        yielding: Collection[str] = (),
    ) -> None:
        """Have it answer, in the place of another version of it; `models` are all there are.

        Those to `keep` do not make room for it, those `yielding` do even if they are busy.

        Raises:
            WorkerError: it does not load, or there is no room; another version is back then.
        """
        if known.overran:
            raise NotNow(
                f"Triton still loads {known.name}, for which nobody waits any more",
                "It goes when that is done; try again later",
            )
        async with self._turn:
            await self._wait_out(known)
            others = [model for model in models if model is not known]
            is_measured = known.version == taken.version and not taken.memory_bytes
            expected_bytes = known.fresh_bytes if is_measured else taken.memory_bytes
            await self._make_room(known, expected_bytes or 0, others, keep, yielding)
            former = await self._make_way(known)
            try:
                await self._put(known, taken)
                await self._make_room(known, known.memory_bytes or 0, others, keep, yielding)
            except WorkerError:
                if known.is_loaded:
                    with contextlib.suppress(NotNow):
                        await self._take_out(known)
                if former is not None:
                    await self._bring_back(known, former)
                raise
            if former is not None:
                former.give_back()

    async def unload(self, models: Iterable[Known]) -> None:
        """Take them out, side by side, once what they were asked is answered.

        What fits beside them is loaded meanwhile.

        Raises:
            WorkerError: one still works after `drain_timeout_s`; it takes nothing new, and goes
                when it is done.
        """
        going = list(models)
        async with self._turn:
            await asyncio.gather(*(self._send_out(known) for known in going if known.is_loaded))
        await asyncio.gather(*(self._wait_out(known) for known in going))

    async def _make_way(self, known: Known) -> Taken | None:
        """Take out another version of it, and keep its files: it may have to come back."""
        if not known.is_loaded:
            return None
        former, known.taken = known.taken, None
        try:
            await self._take_out(known)
        except WorkerError:
            known.taken = former
            raise
        return former

    async def _bring_back(self, known: Known, former: Taken) -> None:
        try:
            await self._wait_out(known)
            await self._put(known, former)
        except WorkerError:
            former.give_back()
            raise

    async def _put(self, known: Known, taken: Taken) -> None:
        known.doing = Doing.LOADING
        self._changed()
        try:
            self._folder.put(known.name, taken.path)
            await self._triton.load(known.name)
        except NoAnswer:
            # It may come up yet: until it is out again it keeps its memory and its files.
            known.taken = taken
            known.memory_bytes = taken.memory_bytes or self._measure(known.name)
            known.doing = Doing.UNLOADING
            known.overran = True
            self._leave(known)
            raise
        except WorkerError:
            self._leave(known)
            with contextlib.suppress(NotNow):
                await self._wait_out(known)
            raise
        self.note_loaded(known, taken)

    def note_loaded(self, known: Known, taken: Taken) -> None:
        """It answers."""
        known.taken = taken
        known.version = taken.version
        known.is_loaded = True
        known.doing = Doing.NOTHING
        known.level = CacheLevel.NVME_CACHED
        known.last_used_at = time.time()
        known.memory_bytes = known.fresh_bytes = taken.memory_bytes or self._measure(known.name)
        self._changed()

    async def _take_out(self, known: Known) -> None:
        await self._send_out(known)
        await self._wait_out(known)

    async def _send_out(self, known: Known) -> None:
        if not self._triton.is_up:
            raise NotNow(f"{known.name} is not up", "Triton is being started; try again later")
        known.is_loaded = False
        known.doing = Doing.UNLOADING
        self._changed()
        try:
            await self._triton.unload(known.name)
        except NoAnswer:
            pass  # it is out once Triton has come to it
        except WorkerError:
            if self._triton.is_up:
                known.is_loaded = True
                known.doing = Doing.NOTHING
                raise
        self._leave(known)

    def _leave(self, known: Known) -> None:
        known.leaves_by = time.monotonic() + self._config.drain_timeout_s
        known.leaving = asyncio.create_task(self._let_go(known), name=f"leaving-{known.name}")

    async def _let_go(self, known: Known) -> None:
        await self._triton.wait_unloaded(known.name)
        with contextlib.suppress(WorkerError):  # the next to be put there meets the same
            self._folder.remove(known.name)
        if known.taken is not None:
            known.taken.give_back()
        known.taken = known.leaving = None
        known.overran = False
        known.doing = Doing.NOTHING
        self._changed()

    async def _wait_out(self, known: Known) -> None:
        if known.leaving is None:
            return
        done, _ = await asyncio.wait({known.leaving}, timeout=self._config.drain_timeout_s)
        if not done:
            raise NotNow(
                f"{known.name} still works on what it was asked",
                "It takes nothing new and goes when it is done; try again later",
            )

    async def _make_room(
        self,
        known: Known,
        needed_bytes: int,
        others: Sequence[Known],
        keep: Collection[str],
        yielding: Collection[str],
    ) -> None:
        limit_bytes = self._config.memory_budget_bytes
        if limit_bytes is None:
            return
        if needed_bytes > limit_bytes:
            raise TooLarge(
                f"{known.name} does not fit: it takes {needed_bytes / MIB:.0f} MiB, and the memory "
                f"budget is {limit_bytes / MIB:.0f} MiB",
                "Raise the memory budget, or serve it from a worker that has more",
            )
        while True:
            readings = await self._triton.readings()
            present = {model.name: model for model in others if model.takes_memory}
            held = [
                model.held(
                    is_busy=readings is not None and readings.is_busy(model.name),
                    is_pinned=self._config.is_pinned(model.name) or model.name in keep,
                    yields=model.name in yielding,
                )
                for model in present.values()
            ]
            plan = room_for(needed_bytes, held, limit_bytes)
            if plan.fits:
                break
            if not await _one_has_left(present.values()):
                raise _no_room(known, needed_bytes, limit_bytes, held, present)
        await asyncio.gather(*(self._take_out(present[each.key]) for each in plan.evict))


async def _one_has_left(models: Iterable[Known]) -> bool:
    """Wait for one of those that are just being unloaded to go; False if none does in its time."""
    going = [known for known in models if known.leaving is not None and not known.overran]
    left_s = max((known.leaves_by for known in going), default=0.0) - time.monotonic()
    leaving = {known.leaving for known in going if known.leaving is not None}
    if not leaving or left_s <= 0:
        return False
    done, _ = await asyncio.wait(leaving, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
    return bool(done)


def _no_room(
    known: Known,
    needed_bytes: int,
    limit_bytes: int,
    held: Sequence[Held],
    present: dict[str, Known],
) -> NoRoom:
    staying = names(present[each.key] for each in held if not each.is_free_to_go)
    return NoRoom(
        f"There is no room for {known.name}: it takes {needed_bytes / MIB:.0f} of "
        f"{limit_bytes / MIB:.0f} MiB" + (f", and {staying} cannot go" if staying else ""),
        "Unload something, or raise the memory budget",
    )
