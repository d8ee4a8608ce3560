"""Traces that are replayed: as many, as long and as uneven as they were counted to be."""

from __future__ import annotations

import random
from pathlib import Path
from statistics import median

import pytest

from bench.client import Load
from bench.replay import Lane, Replayed, gaps_s, prompt_of, rows
from bench.traces import TRACES, Asked, Lengths, drawn, read

HEAD = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


@pytest.mark.parametrize("name", TRACES)
def test_a_drawn_trace_has_the_requests_and_lengths_that_were_counted(name: str) -> None:
    trace = TRACES[name]

    asked = drawn(trace, 4000, 60.0, 0.5, seed=3)

    assert len(asked) == pytest.approx(4000, rel=0.1)
    assert all(0.0 <= each.at_s < 60.0 for each in asked)
    assert [each.at_s for each in asked] == sorted(each.at_s for each in asked)
    assert median(each.prompt_tokens for each in asked) == pytest.approx(
        trace.prompts.median / 2, rel=0.1
    )
    assert median(each.output_tokens for each in asked) == pytest.approx(
        trace.outputs.median / 2, rel=0.15
    )
    assert min(each.output_tokens for each in asked) >= 1


def test_the_same_seed_draws_the_same_trace_and_another_one_another() -> None:
    one, again, other = (drawn(TRACES["bursty"], 100, 10.0, 1.0, seed) for seed in (1, 1, 2))

    assert one == again
    assert one != other


def test_lengths_have_their_median_and_their_99th_percentile() -> None:
    chance = random.Random(1)
    lengths = sorted(Lengths(100, 700).draw(chance) for _ in range(20_000))

    assert lengths[10_000] == pytest.approx(100, rel=0.05)
    assert lengths[19_800] == pytest.approx(700, rel=0.1)


def test_the_day_has_its_peak_in_the_middle_and_bursts_leave_minutes_empty() -> None:
    def by_tenth(name: str) -> list[int]:
        asked = drawn(TRACES[name], 2000, 100.0, 1.0, seed=5)
        return [sum(10 * n <= each.at_s < 10 * n + 10 for each in asked) for n in range(10)]

    day = by_tenth("diurnal")
    seconds = [0] * 100
    for each in drawn(TRACES["bursty"], 2000, 100.0, 1.0, seed=5):
        seconds[int(each.at_s)] += 1

    assert max(day) / min(day) == pytest.approx(3.3, rel=0.3)
    assert day.index(max(day)) in (3, 4, 5, 6)
    assert max(seconds) > 2.5 * sum(seconds) / 100
    assert min(seconds) < 0.3 * sum(seconds) / 100


def test_a_file_with_azures_columns_is_read_and_pressed_together(tmp_path: Path) -> None:
    file = tmp_path / "conv.csv"
    file.write_text(
        HEAD
        + "2023-11-16 18:15:56.6805900,374,44\n"
        + "2023-11-16 18:15:46.6805900,1000,10\n"
        + "2023-11-16 18:16:06.6805900,2,1\n"
    )

    asked = read(file, 3, seconds=4.0, share=0.5, seed=1)

    assert asked == [
        Asked(0.0, 500, 5),
        Asked(pytest.approx(2.0), 187, 22),  # type: ignore[arg-type]
        Asked(4.0, 1, 1),
    ]


def test_a_file_with_more_requests_than_wanted_is_thinned_out(tmp_path: Path) -> None:
    file = tmp_path / "many.csv"
    lines = [f"2023-11-16 18:{n // 60:02}:{n % 60:02}.0,10,10\n" for n in range(3600)]
    file.write_text(HEAD + "".join(lines))

    asked = read(file, 360, seconds=60.0, share=1.0, seed=1)

    assert len(asked) == pytest.approx(360, rel=0.2)
    assert asked[-1].at_s > 55.0


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a,b\n1,2\n", "expected the columns TIMESTAMP"),
        (HEAD, "no requests"),
        (HEAD + "yesterday,1,1\n", "line 2 cannot be read"),
        (HEAD + "2023-11-16 18:15:46.0,1\n", "line 2 cannot be read"),
    ],
)
def test_a_file_that_is_no_trace_is_refused_with_its_reason(
    tmp_path: Path, text: str, problem: str
) -> None:
    file = tmp_path / "odd.csv"
    file.write_text(text)

    with pytest.raises(ValueError, match=problem):
        read(file, 10, 1.0, 1.0, 1)


def test_gaps_lead_to_the_moments_and_prompts_have_their_length() -> None:
    asked = [Asked(0.5, 130, 1), Asked(0.75, 1, 1), Asked(2.0, 99_999, 1)]

    assert list(gaps_s(asked)) == [0.5, 0.25, 1.25]
    assert [len(prompt_of(each).split()) for each in asked] == [100, 1, 1154]
    assert prompt_of(asked[0]) != prompt_of(asked[0])


def test_what_was_refused_stands_beside_what_was_answered() -> None:
    whole, first = Load([0.1, 0.3]), Load([0.05, 0.06])
    whole.errors.update({"HTTP 503: busy": 1, "HTTP 503: still busy": 1})
    lanes = [Lane("on the line", whole, first), Lane("jobs", Load([0.5]), Load())]

    table = rows(Replayed("bursty", [Asked(0.0, 1, 1)] * 4, 1.0, lanes))

    assert table[0] == ("| bursty | on the line | 4 | 2 | 2 × HTTP 503 | 50, 60 ms | 100, 300 ms |")
    assert table[1] == "| bursty | jobs | 4 | 1 | 0 | – | 500, 500 ms |"
