"""The function that does each minute's chores on AWS."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from functions.ping import handler as ping
from synapse.application.ping import KEEP_WARM_S, PING_TIMEOUT_S
from synapse.domain.errors import Unavailable
from tests.factories import a_worker
from tests.infra.translation import TEMPLATE, read
from tests.lambda_context import a_context

CHORES = ("sweep", "restart", "expire", "ping")
CONTEXT = a_context("ping")


class Chores:
    """A target that notes what is done, some of which fails."""

    def __init__(self, *failing: str, unheeded: tuple[str, ...] = ()) -> None:
        self.settings = SimpleNamespace(homeless=("gpu-ecs",), unheeded=unheeded)
        self.done: list[str] = []
        self.wishes: dict[str, object] = {}
        self.failing = failing
        self.flushed = False
        self.sweeper = SimpleNamespace(sweep=self._chore("sweep", {"expire": 1}))
        self.file_batches = SimpleNamespace(restart_stale=self._chore("restart", []))
        self.parts = SimpleNamespace(workers=SimpleNamespace(expire=self._chore("expire", [])))
        self.pinger = SimpleNamespace(ping=self._chore("ping", []))

    def _chore(self, name: str, answer: Any) -> Callable[..., Any]:
        async def chore(*_: object, **wishes: object) -> Any:
            self.done.append(name)
            self.wishes |= wishes
            if name in self.failing:
                raise Unavailable(f"{name} cannot be done")
            return answer

        return chore

    @contextlib.contextmanager
    def telemetry_flushed(self) -> Iterator[None]:
        yield
        self.flushed = True


def handled(chores: Chores, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(ping, "target", lambda: chores)
    answer: dict[str, Any] = ping.handler({}, CONTEXT)
    return answer


def test_all_is_done_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    chores = Chores()

    assert handled(chores, monkeypatch)["swept"] == {"expire": 1}
    assert chores.done == [*CHORES]


def test_a_worker_that_said_why_it_gave_up_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    chores = Chores()
    silent, said = a_worker("silent"), a_worker("said").ended("its card is broken")
    chores.parts.workers.expire = chores._chore("expire", [silent, said])

    assert handled(chores, monkeypatch)["dead"] == ["silent"]


def test_a_sweep_and_pings_that_nobody_answers_end_within_the_functions_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Lambda ends what takes longer, and with it all metrics of that minute."""
    chores = Chores()
    handled(chores, monkeypatch)
    timeout_s = read(TEMPLATE)["Resources"]["PingFunction"]["Properties"]["Timeout"]

    sweep_s = chores.wishes["for_s"]

    assert isinstance(sweep_s, float)
    assert sweep_s + PING_TIMEOUT_S + KEEP_WARM_S < timeout_s


@pytest.mark.parametrize("failing", CHORES)
def test_one_that_fails_keeps_none_of_the_others(
    failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chores = Chores(failing)

    with pytest.raises(RuntimeError, match=failing):
        handled(chores, monkeypatch)

    assert chores.done == [*CHORES]
    assert chores.flushed


def test_a_window_that_cannot_be_understood_is_told_when_all_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chores = Chores(unheeded=("SYNAPSE_WARM: a window lacks or misstates 'model'",))

    with pytest.raises(RuntimeError, match="warm windows"):
        handled(chores, monkeypatch)

    assert chores.done == [*CHORES]
    assert chores.flushed
