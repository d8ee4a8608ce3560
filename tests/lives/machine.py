"""Whole lives of jobs, at random: submitted, sent, dispatched, run, lost, cancelled, swept.

Messages come twice, late, in any order or not at all; runners die, or write when others have taken
over; AWS refuses, or does what it is told and does not say so; clocks jump, also back. After all
that the faults stop, time passes, and `tests.lives.oracle` judges what has become of every job.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from synapse.application.waiting import MOST_WAIT
from synapse.domain.job import Failure, JobId
from tests.fakes import FakeClock
from tests.lives.deployments import InlineLoop, Open
from tests.lives.engine import Fate, FatedEngine
from tests.lives.oracle import Oracle
from tests.lives.rooms import SLOTS
from tests.lives.system import KEYS, System, Wish
from tests.lives.trouble import Fault, Trouble

T = TypeVar("T")

MOSTLY_NONE: list[Fault | None] = [None, None, None, None]
PLANS: st.SearchStrategy[list[Fault | None]] = st.just([]) | st.lists(
    st.sampled_from([*MOSTLY_NONE, *Fault]), min_size=1, max_size=8
)
FATES = st.lists(st.sampled_from([Fate.ECHO, *Fate]), min_size=1, max_size=8)
WISHES = st.builds(
    Wish,
    key=st.none() | st.sampled_from(KEYS),
    timeout_s=st.sampled_from([60.0, 900.0, 7200.0]),
    is_limited=st.booleans(),
    is_large=st.integers(0, 9).map(lambda n: n == 9),
)
JUMPS_S = st.sampled_from([0.5, 30.0, 121.0, 601.0, 4000.0, -0.5, -30.0, -700.0, -4000.0])
WHICH = st.integers(0, 7)
ROOM = st.sampled_from([SLOTS, 2, 1, 0])


class JobLives(RuleBasedStateMachine):
    """Does at random what can happen to a deployment, and looks at all jobs after each step."""

    open_deployment: Open

    @initialize(wishes=st.lists(WISHES, min_size=1, max_size=7))
    def open(self, wishes: list[Wish]) -> None:
        self.runner = asyncio.Runner(loop_factory=InlineLoop)
        self.stack = AsyncExitStack()
        self.clock, self.trouble = FakeClock(), Trouble()
        self.engine = FatedEngine(self.clock)
        self.run_now(self._open())
        for wish in wishes:
            self.run_now(self.system.submit(wish))

    async def _open(self) -> None:
        opening = type(self).open_deployment(self.clock, self.trouble)
        deployed = await self.stack.enter_async_context(opening)
        self.system = System(deployed, self.clock, self.engine, self.trouble)
        self.oracle = Oracle(self.system)

    def run_now(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def teardown(self) -> None:
        if not hasattr(self, "system"):
            return
        try:
            if sys.exc_info()[0] is None:  # else what is broken is found already
                self.trouble.plan([])
                self.run_now(self.oracle.judge_in_the_end())
        finally:
            self.run_now(self._close())
            self.runner.close()

    async def _close(self) -> None:
        await self.system.stop()
        await self.stack.aclose()

    @rule(wish=WISHES, plan=PLANS)
    def submit(self, wish: Wish, plan: list[Fault | None]) -> None:
        self.trouble.plan(plan)
        self.run_now(self.system.submit(wish))

    @precondition(lambda self: self.system.keyed)
    @rule(which=WHICH, plan=PLANS)
    def send_again(self, which: int, plan: list[Fault | None]) -> None:
        """The same request with the same key, as a client does that got no answer."""
        wishes = list(self.system.keyed.values())
        self.trouble.plan(plan)
        self.run_now(self.system.submit(wishes[which % len(wishes)]))

    @rule(
        order=st.lists(WHICH, min_size=1, max_size=8),
        twice=st.booleans(),
        gathered=st.booleans(),
        plan=PLANS,
    )
    def dispatch(
        self, order: list[int], twice: bool, gathered: bool, plan: list[Fault | None]
    ) -> None:
        """Messages in any order; those that stay are delivered again."""
        self.trouble.plan(plan)
        self.run_now(self.system.dispatch(order, keep=twice, were_gathered=gathered))

    @rule(order=st.lists(WHICH, min_size=1, max_size=8), fates=FATES, plan=PLANS)
    def dispatch_and_run(
        self, order: list[int], fates: list[Fate], plan: list[Fault | None]
    ) -> None:
        """All that there is to run, one after the other."""
        self.run_now(self.system.dispatch(order, keep=False))
        self.trouble.plan(plan)
        self.engine.fates = fates
        while self.system.orders:
            self.run_now(self.system.run([self.system.orders.pop(0)]))

    @rule(
        room=ROOM, back_after=st.none() | st.integers(1, 6), waiting=st.sampled_from([0, MOST_WAIT])
    )
    def others_come_or_go(self, room: int, back_after: int | None, waiting: int) -> None:
        """There is less room, or more; who waits for some may get it. All places may be taken."""
        self.system.rooms.set(room, back_after, waiting)

    @precondition(lambda self: self.system.messages)
    @rule(which=WHICH)
    def lose_a_message(self, which: int) -> None:
        self.system.messages.pop(which % len(self.system.messages))

    @precondition(lambda self: self.system.orders)
    @rule(which=WHICH)
    def lose_a_batch(self, which: int) -> None:
        self.system.orders.pop(which % len(self.system.orders))

    @precondition(lambda self: self.system.orders)
    @rule(which=WHICH, fates=FATES, runners=st.sampled_from([1, 1, 2]), plan=PLANS)
    def run_a_batch(
        self, which: int, fates: list[Fate], runners: int, plan: list[Fault | None]
    ) -> None:
        """By one runner or by two at once."""
        order = self.system.orders.pop(which % len(self.system.orders))
        self.trouble.plan(plan)
        self.engine.fates = fates
        self.run_now(self.system.run([order] * runners))

    @precondition(lambda self: self.engine.held)
    @rule(which=WHICH, plan=PLANS)
    def wake_a_runner(self, which: int, plan: list[Fault | None]) -> None:
        """It goes on with what it thinks is its own."""
        held = list(self.engine.held)
        self.trouble.plan(plan)
        self.run_now(self.system.wake(held[which % len(held)]))

    @precondition(lambda self: self.engine.held)
    @rule(which=WHICH)
    def kill_a_runner(self, which: int) -> None:
        held = list(self.engine.held)
        self.run_now(self.system.kill(held[which % len(held)]))

    @precondition(lambda self: self.system.ran)
    @rule(which=WHICH, lost=st.booleans(), plan=PLANS)
    def give_back_late(self, which: int, lost: bool, plan: list[Fault | None]) -> None:
        """The batcher's last step, delivered for a batch that may long be over."""
        batch = self.system.ran[which % len(self.system.ran)].batch
        self.trouble.plan(plan)
        failure = Failure("worker_lost", "as it was fated")
        self.run_now(self.system.give_back(batch.id, batch.job_ids, failure, lost=lost))

    @precondition(lambda self: self.system.accepted)
    @rule(which=WHICH, plan=PLANS)
    def cancel(self, which: int, plan: list[Fault | None]) -> None:
        ids: list[JobId] = list(self.system.accepted)
        self.trouble.plan(plan)
        self.run_now(self.system.cancel(ids[which % len(ids)]))

    @precondition(lambda self: self.system.accepted)
    @rule(which=WHICH, plan=PLANS)
    def read(self, which: int, plan: list[Fault | None]) -> None:
        """As a caller does, which ends what has expired."""
        ids: list[JobId] = list(self.system.accepted)
        self.trouble.plan(plan)
        self.run_now(self.system.read(ids[which % len(ids)]))

    @rule(plan=PLANS)
    def sweep(self, plan: list[Fault | None]) -> None:
        self.trouble.plan(plan)
        self.run_now(self.system.sweep())

    @rule(seconds=JUMPS_S)
    def jump(self, seconds: float) -> None:
        """Time passes; or a clock is set, which may be back."""
        self.clock.advance(seconds)

    @invariant()
    def nothing_is_broken_so_far(self) -> None:
        if hasattr(self, "system"):
            with self.trouble.put_off():
                self.run_now(self.oracle.look())


def machine_for(open_deployment: Open) -> type[JobLives]:
    """The machine over a deployment that is opened anew for every life."""
    return type("Lives", (JobLives,), {"open_deployment": staticmethod(open_deployment)})
