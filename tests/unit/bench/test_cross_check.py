"""What is read of wrk's words."""

from __future__ import annotations

import pytest

from bench.cross_check import NoWrk, measure, told_by

WORDS = """Running 1s test @ http://127.0.0.1:1/v1/completions
  1 threads and 8 connections
Requests/sec:    700.00
"""


def told(answers: int, errors: int) -> str:
    return (
        f'{WORDS}{{"answers": {answers}, "took_us": 1000000, "p50_us": 1500.0, '
        f'"p99_us": 9000.0, "errors": {errors}}}'
    )


def test_figures_are_what_our_script_writes_last() -> None:
    found = told_by(told(700, 0))

    assert (found["answers"], found["took_us"], found["p99_us"]) == (700, 1_000_000, 9000.0)


@pytest.mark.parametrize(("answers", "errors"), [(700, 1), (0, 0)])
def test_answers_that_are_none_are_no_figures(answers: int, errors: int) -> None:
    with pytest.raises(RuntimeError, match="not answered well"):
        told_by(told(answers, errors))


def test_without_wrk_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    with pytest.raises(NoWrk, match="not installed"):
        measure(1, 1.0)
