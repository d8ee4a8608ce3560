"""A number of lives in one of the deployments."""

from __future__ import annotations

import logging

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.lives.deployments import DEPLOYMENTS
from tests.lives.machine import machine_for

STEPS = 30


def live(name: str, lives: int, with_seed: int | None = None, *, shorten: bool = True) -> None:
    """Live so many lives.

    Raises:
        AssertionError: a promise was broken. The life is printed; the shortest that also breaks it
            if one is to `shorten` it, which takes a while.
    """
    # What goes wrong is meant to, and the adapters tell of every bit of it.
    logging.disable(logging.CRITICAL)
    try:
        _live(name, lives, with_seed, shorten)
    finally:
        logging.disable(logging.NOTSET)


def _live(name: str, lives: int, with_seed: int | None, shorten: bool) -> None:
    machine = machine_for(DEPLOYMENTS[name])
    if with_seed is not None:
        machine = seed(with_seed)(machine)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=lives,
            stateful_step_count=STEPS,
            phases=[Phase.generate, Phase.shrink] if shorten else [Phase.generate],
            deadline=None,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
