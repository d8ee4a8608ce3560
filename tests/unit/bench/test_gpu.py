"""`make bench-gpu`: all of it that needs no GPU."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from bench import gpu, gpu_plot
from bench.gpu_machine import (
    NAMES,
    Gpu,
    Missing,
    Run,
    Sample,
    Samples,
    gpu_of,
    gpus_in,
    sample_in,
    sampled,
)
from bench.gpu_worker import model_in, pools
from bench.streaming import Round, Stream
from synapse_server.pools_file import read_pools

L4 = "NVIDIA L4, 23034 MiB, 580.65.06\n"
INFO = ("docker", "info", "--format", "{{json .Runtimes}}")
NVIDIA = '{"nvidia":{"path":"nvidia-container-runtime"},"runc":{"path":"runc"}}'


def saying(answers: Mapping[tuple[str, ...], str]) -> Run:
    return lambda command: answers.get(tuple(command))


@pytest.mark.parametrize(
    ("answers", "what"),
    [
        ({}, "there is no NVIDIA GPU here"),
        ({NAMES: "NVIDIA-SMI has failed\n", INFO: NVIDIA}, "there is no NVIDIA GPU here"),
        ({NAMES: "Tesla K20, 4743 MiB, 470.1\n", INFO: NVIDIA}, "has 4743 MiB of memory"),
        ({NAMES: L4}, "there is no Docker"),
        ({NAMES: L4, INFO: '{"runc":{}}'}, "cannot give containers a GPU"),
    ],
)
def test_what_is_missing_is_said_once_with_a_remedy_and_status_2(
    answers: Mapping[tuple[str, ...], str], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpu.main([], run=saying(answers)) == 2

    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("bench-gpu: ")
    assert what in said.err
    assert said.err.count("remedy: ") == 1


def test_the_first_gpu_is_taken_where_docker_can_give_it() -> None:
    answers = {NAMES: L4 + "NVIDIA H100, 81559 MiB, 580.65.06\n", INFO: NVIDIA}

    assert gpu_of(saying(answers)) == Gpu("NVIDIA L4", 23034, "580.65.06")


def test_lines_in_another_form_are_no_gpus() -> None:
    assert gpus_in("No devices were found\nGPU, [N/A], 580\n") == []


def test_a_sample_is_read_and_what_tells_nothing_is_left_out() -> None:
    assert sample_in("93, 18021\n", 1.5) == Sample(1.5, 93.0, 18021.0)
    assert sample_in("[N/A], 18021\n", 1.5) is None
    assert sample_in("\n", 1.5) is None


def test_samples_are_summed_up_by_mean_and_by_the_share_that_is_busy() -> None:
    samples = Samples([Sample(n / 2, percent, 1.0) for n, percent in enumerate((20, 70, 90, 100))])

    assert samples.mean_percent == 70.0
    assert samples.busy_share == 0.75


def test_no_sample_is_no_utilisation() -> None:
    with pytest.raises(RuntimeError, match="told no utilisation"):
        _ = Samples().mean_percent


def test_samples_are_taken_until_the_load_is_over() -> None:
    script = "import time\nwhile True:\n    print('80, 1000', flush=True)\n    time.sleep(0.01)"
    with sampled([sys.executable, "-c", script]) as samples:
        while len(samples.seen) < 3:
            pass

    taken = len(samples.seen)
    assert {sample.percent for sample in samples.seen} == {80.0}
    assert samples.seen == sorted(samples.seen, key=lambda sample: sample.at_s)
    assert len(samples.seen) == taken


def test_the_model_takes_its_share_and_the_server_can_read_its_pool(tmp_path: Path) -> None:
    settings = json.loads((model_in(tmp_path / "m") / "1/model.json").read_text("utf-8"))
    (tmp_path / "pools.toml").write_text(pools(), encoding="utf-8")

    [pool] = read_pools(tmp_path / "pools.toml").pools

    assert settings["gpu_memory_utilization"] == 0.4
    assert settings["model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert pool.pool.endpoint == "127.0.0.1:26001"
    assert pool.pool.slots == {"smollm2-135m-instruct": settings["max_num_seqs"]}


def a_round(first_s: float, tokens: int, seconds: float) -> Round:
    return Round([Stream(first_s, seconds, tokens)], seconds)


def test_a_row_compares_pairs_and_the_tables_and_the_picture_tell_all(tmp_path: Path) -> None:
    pairs = [(a_round(0.02, 90, 1.0), a_round(0.01, 100, 1.0))] * 3
    row = gpu.row_of(8, pairs)
    samples = Samples([Sample(0.0, 60.0, 1.0), Sample(0.5, 90.0, 1.0)])
    load = a_round(0.03, 6000, 60.0)

    told = gpu.table(gpu.Found(Gpu("NVIDIA L4", 23034, "580"), 40.0, 12.5, [row], load, samples))
    gpu_plot.draw(samples, [row], tmp_path, "gpu")

    assert "| 8 | 90 | 100 | 0.900 | ≥ 0.95 | 20.0 ms | 20.0 ms |" in told
    assert "| cold start: a new container to the first token | 40.0 s | |" in told
    assert "| GPU at work, mean of 2 samples | 75 % | > 70 % |" in told
    assert "| samples with 70 % or more | 50% | |" in told
    assert {file.name for file in tmp_path.iterdir()} == {"gpu.svg", "gpu.png"}


def test_what_is_missing_is_an_error_with_its_remedy() -> None:
    assert str(Missing("no GPU", "get one")) == "no GPU\n  remedy: get one"
