"""What the soaks of both targets do alike: harm at random, and a count of what happened."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from tests.chaos.oracle import Oracle

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fault(Generic[T]):
    """A kind of harm to a target, by the name that `--only` knows."""

    name: str
    do: Callable[[T, random.Random], Awaitable[str]]


@dataclass
class Soaked:
    """What happened: jobs and how they ended, faults, how often a request had to be repeated."""

    accepted: int = 0
    resent: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)

    async def harm(
        self,
        target: T,
        kinds: Sequence[Fault[T]],
        draw: random.Random,
        say: Callable[[str], None],
    ) -> None:
        """Do one of these to the target."""
        fault = draw.choice(kinds)
        how = await fault.do(target, draw)
        self.faults[fault.name] += 1
        say(f"{fault.name} {how}".rstrip())

    def note(self, oracle: Oracle, say: Callable[[str], None]) -> None:
        """All that was accepted has ended."""
        self.accepted, self.resent, self.ends = len(oracle.accepted), oracle.resent, oracle.ends
        say(f"{self.accepted} jobs, all ended once: {dict(self.ends)}")
