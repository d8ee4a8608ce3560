"""`synapse cost`: a table of dollars by service, and a clear word where the question makes none."""

from __future__ import annotations

import re

import pytest

from synapse_server.cli import main


def table(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, list[str]]:
    """The cells of each row by its name."""
    assert main(["cost", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [re.split(r"\s{2,}", line.strip()) for line in lines if "  " in line.strip()]
    return {row[0]: row[1:] for row in rows}


def dollars(cell: str) -> float:
    return 0.0 if cell == "-" else float(cell.replace(",", ""))


def test_it_says_what_each_design_costs_by_service_and_that_adds_up(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = table(capsys, "--requests-per-day", "50000", "--model", "rerank", "--peak", "3")

    parts = [
        name
        for name in rows
        if name in {"API Gateway", "Lambda", "SQS", "DynamoDB", "S3", "CloudWatch"}
    ]
    parts += [name for name in rows if name.startswith(("Step F", "machines, "))]
    assert len(parts) == 10
    for column, together in enumerate(rows["together"]):
        each = sum(dollars(rows[name][column]) for name in parts)
        assert each == pytest.approx(dollars(together), abs=0.05)
    month = 50_000 * 730 / 24
    assert dollars(rows["for 1,000 requests"][0]) == pytest.approx(
        dollars(rows["together"][0]) / month * 1000, abs=1e-3
    )


def test_every_design_stands_beside_ours_with_its_promise(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["cost", "--requests-per-day", "1e6", "--peak", "3"]) == 0

    out = capsys.readouterr().out
    for design in ("Synapse, neuron", "naive Lambda", "provisioned"):
        assert design in out
    assert "always-on neuron × 1" in out
    assert "1,000,000 requests a day of rerank, silver, at most 3 times the mean" in out
    assert re.search(r"one item within 150 ms +yes, 18 ms +no, 2,740 ms", out)
    # It runs jobs alone, so it has no column here.
    assert "Synapse, cpu" not in out
    assert "it runs jobs (bronze) alone" in out


def test_jobs_may_run_on_functions_and_their_results_are_fetched_as_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["cost", "--requests-per-day", "9000", "--tier", "bronze", "--busy-hours", "8"]

    assert main(options) == 0
    later = capsys.readouterr().out
    assert main([*options, "--results", "wait", "--prompt-kib", "2"]) == 0
    waits = capsys.readouterr().out

    assert "Synapse, cpu on Lambda" in later
    assert "Of a job 9 KiB come and 0.4 KiB go; the result is fetched once after the end." in later
    assert "Of a job 2 KiB come and 0.4 KiB go; the result is waited for in a function." in waits


def test_a_function_has_the_memory_that_is_said_or_known_of_the_model(
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ("--requests-per-day", "1e6", "--item-ms", "cpu=900")

    ten, two = (table(capsys, *options, "--lambda-gb", gb)["Lambda"][0] for gb in ("10", "2"))

    assert dollars(ten) == pytest.approx(5 * dollars(two), rel=0.01)
    assert main(["cost", *options, "--model", "embed"]) == 0
    assert "A function with the model in itself has 2 GB (arm64)." in capsys.readouterr().out


def test_a_few_requests_are_not_called_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", "--requests-per-day", "0.3"]) == 0

    assert capsys.readouterr().out.startswith("0.3 requests a day of rerank")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--requests-per-day", "1e6"], "those that keep 150 ms: always-on neuron × 1, 553.49."),
        (["--requests-per-day", "1e6", "--busy-hours", "8"], "keep 150 ms: Synapse, neuron, "),
        (["--requests-per-day", "60"], " of the requests wait for a start."),
        (["--requests-per-day", "60", "--tier", "bronze"], "The cheapest: naive Lambda, "),
        (
            ["--requests-per-day", "60", "--tier", "gold", "--item-ms", "cpu=900"],
            "None of them keeps the promise of gold.",
        ),
    ],
)
def test_the_cheapest_that_keeps_the_promise_is_named(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cost", *options]) == 0

    assert said in capsys.readouterr().out


def test_a_model_of_ones_own_is_priced_by_its_times(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--requests-per-day", "1000", "--model", "mine", "--tier", "bronze")

    rows = table(capsys, *options, "--item-ms", "gpu=40", "--item-ms", "cpu=900")

    assert rows["one item, alone"] == ["40 ms", "900 ms", "900 ms", "900 ms", "900 ms"]
    assert dollars(rows["SQS"][0]) > 0


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--requests-per-day", "0"], "requests a day: must be more than 0"),
        (["--requests-per-day", "nan"], "requests a day: must be more than 0"),
        (["--requests-per-day", "9", "--model", "gpt"], "speed of model 'gpt' is not published"),
        (["--requests-per-day", "9", "--peak", "0.5"], "peak: must be 1 to 100"),
        (["--requests-per-day", "9", "--busy-hours", "25"], "busy hours: must be more than 0"),
        (["--requests-per-day", "9", "--item-ms", "gpu"], "give KIND=MS"),
        (["--requests-per-day", "9", "--item-ms", "tpu=4"], "there is no accelerator 'tpu'"),
        (["--requests-per-day", "9", "--item-ms", "gpu=-4"], "more than 0 ms on gpu"),
        (["--requests-per-day", "9", "--max-workers", "0"], "--max-workers at least 1"),
        (["--requests-per-day", "9", "--idle-s", "-1"], "--idle-s must be at least 0"),
        (["--requests-per-day", "9", "--idle-s", "nan"], "--idle-s must be at least 0"),
        (["--requests-per-day", "9", "--lambda-gb", "nan"], "--lambda-gb must be 0.125 to 10"),
        (["--requests-per-day", "9", "--prompt-kib", "nan"], "--prompt-kib and --result-kib"),
        (["--requests-per-day", "1e9", "--max-workers", "2"], "more workers than there may be"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    options: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cost", *options]) == 1

    said = capsys.readouterr()
    assert why in said.err
    assert said.err.startswith("synapse: ")
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_the_number_of_requests_has_to_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["cost"])

    assert exit_.value.code == 2
    assert "--requests-per-day" in capsys.readouterr().err
