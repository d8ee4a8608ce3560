"""What a process has seen of the workers it calls."""

from __future__ import annotations

from synapse.application.vitals import Vitals
from synapse.domain.latency import WINDOW_S
from tests.fakes import FakeClock


def test_a_worker_is_spare_while_another_model_keeps_it_up_and_it_does_nothing() -> None:
    vitals = Vitals(FakeClock())

    assert not vitals.is_spare("text", "gpu", ["gpu-1"])
    vitals.buys("image", "gpu")
    assert vitals.is_spare("text", "gpu", ["gpu-1"])
    vitals.outstanding["gpu", "gpu-1"] += 1
    assert not vitals.is_spare("text", "gpu", ["gpu-1"])
    assert vitals.is_spare("text", "gpu", ["gpu-1", "gpu-2"])


def test_no_worker_is_spare_for_the_model_that_keeps_it_up() -> None:
    vitals = Vitals(FakeClock())
    vitals.buys("text", "gpu")

    assert not vitals.is_spare("text", "gpu", ["gpu-1"])


def test_no_worker_is_spare_any_more_when_the_other_model_was_not_asked_for_lately() -> None:
    clock = FakeClock()
    vitals = Vitals(clock)
    vitals.buys("image", "gpu")
    clock.advance(WINDOW_S)

    assert not vitals.is_spare("text", "gpu", ["gpu-1"])


def test_a_pool_without_a_worker_has_none_to_spare() -> None:
    vitals = Vitals(FakeClock())
    vitals.buys("image", "gpu")

    assert not vitals.is_spare("text", "gpu", [])
