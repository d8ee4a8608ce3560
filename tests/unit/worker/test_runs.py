import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from synapse_worker.runs import RUN_COST_TOKENS, runs

LENGTHS = st.lists(st.integers(1, 512), max_size=80)


def made(lengths: list[int], run_tokens: int = 2048) -> list[list[int]]:
    return [run.tolist() for run in runs(np.array(lengths, dtype=np.int32), run_tokens)]


@given(LENGTHS, st.integers(1, 4096))
def test_every_row_runs_once(lengths: list[int], run_tokens: int) -> None:
    rows = [row for run in made(lengths, run_tokens) for row in run]

    assert sorted(rows) == list(range(len(lengths)))


@given(LENGTHS, st.integers(1, 4096))
def test_a_run_is_never_larger_than_allowed_unless_one_row_is(
    lengths: list[int], run_tokens: int
) -> None:
    for run in made(lengths, run_tokens):
        longest = lengths[run[-1]]
        assert longest == max(lengths[row] for row in run)
        assert len(run) == 1 or longest * len(run) <= run_tokens


@given(LENGTHS)
def test_no_run_is_padded_by_more_than_another_run_would_cost(lengths: list[int]) -> None:
    for run in made(lengths):
        padding = lengths[run[-1]] * len(run) - sum(lengths[row] for row in run)
        assert padding <= RUN_COST_TOKENS


def test_rows_of_one_length_are_one_run_and_strangers_are_not() -> None:
    assert made([7] * 9) == [list(range(9))]
    assert made([300, 5, 6, 290]) == [[1, 2], [3, 0]]
    assert made([]) == []
