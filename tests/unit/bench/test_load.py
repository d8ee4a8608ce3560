"""Closed and open loops, and what is counted in them."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from bench.client import Load, Refused, closed_loop, open_loop, percentile, poisson
from bench.texts import WORDS, sentence


async def test_in_a_closed_loop_each_client_asks_so_often_at_least() -> None:
    asked = 0

    async def work() -> None:
        nonlocal asked
        asked += 1

    await closed_loop(4, 0.0, work)
    assert asked == 4
    await closed_loop(4, 0.0, work, waves=3)
    assert asked == 4 + 12


async def test_a_closed_loop_counts_answers_and_errors_apart() -> None:
    answers = random.Random(1)

    async def work() -> None:
        await asyncio.sleep(0)
        if answers.random() < 0.3:
            raise Refused("HTTP 503")
        if answers.random() < 0.1:
            raise ConnectionResetError

    load = await closed_loop(4, 0.3, work)

    assert load.errors.total() > 0
    assert set(load.errors) <= {"HTTP 503", "ConnectionResetError"}
    assert load.per_s == pytest.approx(len(load.latencies_s) / load.took_s)
    with pytest.raises(RuntimeError, match="HTTP 503"):
        load.without_errors()


async def test_an_open_loop_sends_whatever_the_answers_do() -> None:
    started = ended = most_at_once = 0

    async def work() -> None:
        nonlocal started, ended, most_at_once
        started += 1
        most_at_once = max(most_at_once, started - ended)
        await asyncio.sleep(0.05)
        ended += 1

    load = await open_loop([0.001] * 20, work)

    assert started == len(load.without_errors().latencies_s) == 20
    assert most_at_once > 1


async def test_latencies_of_an_open_loop_count_from_when_a_request_was_due() -> None:
    async def work() -> None:
        # Holds up the client itself: the next ones are sent late, and that is not forgotten.
        deadline = asyncio.get_running_loop().time() + 0.05
        while asyncio.get_running_loop().time() < deadline:
            pass

    load = await open_loop([0.0] * 4, work)

    assert sorted(load.latencies_s)[-1] > 0.15


async def test_what_no_load_can_explain_is_not_swallowed() -> None:
    async def work() -> None:
        raise KeyError("a mistake of the benchmark")

    with pytest.raises(KeyError):
        await closed_loop(1, 0.1, work)


def test_arrivals_at_random_have_the_rate_asked_for() -> None:
    gaps = poisson(100.0, 50.0)
    assert len(gaps) == 5000
    assert sum(gaps) == pytest.approx(50.0, rel=0.1)
    assert poisson(100.0, 50.0) == gaps


def test_quantiles_are_of_what_was_answered() -> None:
    load = Load([0.001 * each for each in range(100, 0, -1)], Counter({"TimeoutError": 9}))
    assert load.quantile_ms(0.5) == pytest.approx(50.0)
    assert load.quantile_ms(0.99) == pytest.approx(99.0)
    assert load.quantile_ms(0.991) == pytest.approx(100.0)
    with pytest.raises(ValueError, match="nothing"):
        Load().quantile_ms(0.5)


@pytest.mark.parametrize("count", [1, 2, 3, 99, 100, 101, 300])
def test_a_percentile_is_the_least_that_so_many_do_not_exceed(count: int) -> None:
    values = list(range(count))
    for share in (0.5, 0.95, 0.99):
        found = percentile(values, share)
        assert sum(each <= found for each in values) >= share * count
        assert sum(each < found for each in values) < share * count


def test_sentences_are_the_same_in_every_run() -> None:
    once = [sentence(random.Random(7), 24) for _ in range(3)]
    assert once == [sentence(random.Random(7), 24) for _ in range(3)]
    words = once[0].split()
    assert 4 <= len(words) <= 24
    assert set(words) <= set(WORDS)
