"""The engine itself, with model files that say other things of their vocabulary."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.integration.worker.conftest import ROOT, VENV


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    done = subprocess.run(
        [
            VENV / "bin" / "python",
            Path(__file__).with_name("engine_checks.py"),
            tmp_path_factory.mktemp("ggufs"),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT / "workers")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("kind", ["adds_one", "adds_by_its_kind"])
def test_a_first_token_that_the_engine_adds_is_not_written_twice(
    found: dict[str, Any], kind: str
) -> None:
    written, unwritten, alone, twice = found[kind]

    assert written == unwritten
    assert written[0] == found["adds_none"][0][0]
    assert alone[0] == 1
    assert twice[0] == written[0] + 1, "only the first is the engine's"


def test_a_first_token_that_the_engine_does_not_add_is_left_alone(found: dict[str, Any]) -> None:
    written, unwritten, alone, twice = found["adds_none"]

    assert (unwritten[0], alone[0], twice[0]) == (written[0] - 1, 1, written[0] + 1)
    assert found["says_nothing"] == found["adds_none"]


def test_tokens_are_told_alike_with_stop_strings_and_without(found: dict[str, Any]) -> None:
    free, *stopping = found["logprobs"]

    assert [written for written, *_ in free[:4]] == [" Paris", ".", "\n", "\n"]
    assert all(each == free for each in stopping)


def test_a_choice_is_answered_as_it_was_given(found: dict[str, Any]) -> None:
    assert all(answer == choice for choice, answer in found["choices"].items())


def test_every_seed_repeats_itself(found: dict[str, Any]) -> None:
    assert all(first == second for first, second in found["seeds"].values())


def test_the_least_temperatures_write_the_likeliest(found: dict[str, Any]) -> None:
    likeliest, *others = found["cold"]

    assert all(each == likeliest for each in others)


@pytest.mark.parametrize("kind", ["begins_with_its_end", "begins_with_nothing"])
def test_a_constraint_that_allows_nothing_at_all_is_no_broken_one(
    found: dict[str, Any], kind: str
) -> None:
    *answers, refusal = found[kind]

    assert len(answers) == 3
    assert "cannot apply" in refusal


def test_keywords_that_ask_nothing_are_no_reason_to_refuse_a_schema(found: dict[str, Any]) -> None:
    text, by_name, items = map(json.loads, found["schemas"])

    assert isinstance(text, str)
    assert 1 <= len(text) <= 20
    assert set(by_name.values()) <= {1}
    assert set(items) <= {1}


def test_what_the_engine_does_not_know_is_refused_by_name(found: dict[str, Any]) -> None:
    named = ["'uniqueItems' at anyOf.0", "in the 'pattern' at anyOf.0", "'not' at anyOf.0"]

    assert len(found["unknown"]) == len(named)
    assert all(name in refusal for name, refusal in zip(named, found["unknown"], strict=True))
