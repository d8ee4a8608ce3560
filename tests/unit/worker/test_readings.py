"""What an agent reads: Triton's metrics page, /proc."""

import os
from pathlib import Path
from typing import Any

import pytest

from synapse_worker.agent.memory import PAGE_BYTES, free_bytes, held_by, tree_bytes
from synapse_worker.agent.readings import read_page

PAGE = """\
# HELP nv_inference_request_success Number of successful inference requests
nv_inference_request_success{model="a",version="1"} 12
nv_inference_request_failure{model="a",reason="OTHER",version="1"} 2
nv_inference_request_failure{model="a",reason="CANCELED",version="1"} 1
nv_inference_pending_request_count{model="a",version="1"} 3
nv_inference_pending_request_count{model="b",version="1"} 0
vllm:num_requests_running{model="b",version="1"} 5
vllm:num_requests_waiting{model="b",version="1"} 4
vllm:kv_cache_usage_perc{model="b",version="1"} 0.25
vllm:prefix_cache_queries{model="b",version="1"} 200
vllm:prefix_cache_hits{model="b",version="1"} 50
nv_gpu_utilization{gpu_uuid="GPU-0"} 0.5
nv_gpu_utilization{gpu_uuid="GPU-1"} 1
nv_gpu_memory_total_bytes{gpu_uuid="GPU-0"} 1.5e+10
nv_gpu_memory_total_bytes{gpu_uuid="GPU-1"} 1.5e+10
nv_gpu_memory_used_bytes{gpu_uuid="GPU-0"} 1e+09
nv_gpu_memory_used_bytes{gpu_uuid="GPU-1"} 2e+09
nv_cpu_memory_total_bytes NaN of the above
"""


def test_the_page_tells_what_waits_what_runs_and_what_has_ended() -> None:
    readings = read_page(PAGE)

    assert (readings.queue_length, readings.running) == (7, 5)
    assert readings.models["a"].ended == 15
    assert readings.is_busy("a")
    assert readings.is_busy("b")
    assert not readings.is_busy("c")


def test_only_an_engine_that_tells_what_runs_is_known_to_be_idle() -> None:
    readings = read_page(PAGE.replace("} 5", "} 0").replace("} 4", "} 0").replace("} 3", "} 0"))

    assert not readings.is_busy("a")
    assert not readings.is_idle("a")
    assert readings.is_idle("b")
    assert not read_page(PAGE).is_idle("b")
    assert not readings.is_idle("c")


def test_the_page_tells_of_gpus_and_of_the_engines_caches() -> None:
    readings = read_page(PAGE)

    assert readings.gpu_utilisation == 0.75
    assert readings.gpu_memory_total_bytes == 30_000_000_000
    assert readings.gpu_memory_used_bytes == 3_000_000_000
    assert readings.kv_cache_use == 0.25
    assert readings.kv_cache_hit_rate == 0.25


@pytest.mark.parametrize("page", ["", "half a li", "vllm:prefix_cache_queries 0\n", "\x00{}{ 1"])
def test_what_a_page_does_not_tell_is_none(page: str) -> None:
    readings = read_page(page)

    assert readings.gpu_utilisation is None
    assert readings.gpu_memory_used_bytes is None
    assert readings.kv_cache_use is None
    assert readings.kv_cache_hit_rate is None
    assert readings.queue_length == 0


def test_older_names_of_vllm_are_understood() -> None:
    page = (
        'vllm:gpu_cache_usage_perc{model_name="b"} 0.5\n'
        'vllm:gpu_prefix_cache_queries_total{model_name="b"} 4\n'
        'vllm:gpu_prefix_cache_hits_total{model_name="b"} 3\n'
    )

    assert read_page(page).kv_cache_use == 0.5
    assert read_page(page).kv_cache_hit_rate == 0.75


def process(proc: Path, pid: int, pages: int, children: str, command: str = "x") -> None:
    (proc / str(pid) / "task" / str(pid)).mkdir(parents=True)
    (proc / str(pid) / "task" / str(pid) / "children").write_text(children)
    (proc / str(pid) / "statm").write_text(f"999 {pages} 1 1 0 1 0")
    (proc / str(pid) / "cmdline").write_text(command.replace(" ", "\0"))


def test_a_models_memory_is_that_of_its_processes_and_of_theirs(tmp_path: Path) -> None:
    stub = "/s/triton_python_backend_stub /m/{}/1/model.py"
    process(tmp_path, 1, 100, "2 3 4")
    process(tmp_path, 2, 10, "5", stub.format("a"))
    process(tmp_path, 3, 20, "", stub.format("a"))
    process(tmp_path, 4, 40, "", stub.format("b"))
    process(tmp_path, 5, 5, "77")  # its child has just ended

    held = held_by(1, tmp_path)

    assert held.all_bytes == tree_bytes(1, tmp_path) == 175 * PAGE_BYTES
    assert [held.of(model) for model in "abc"] == [35 * PAGE_BYTES, 40 * PAGE_BYTES, 0]


def test_free_memory_is_the_containers_where_that_is_less(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 16 kB\nMemAvailable:    8 kB\n")
    assert free_bytes(tmp_path, tmp_path) == 8192

    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("4096\n")
    assert free_bytes(tmp_path, tmp_path) == 8192

    (tmp_path / "memory.max").write_text("6144\n")
    assert free_bytes(tmp_path, tmp_path) == 2048
    assert free_bytes(tmp_path / "nowhere", tmp_path / "nowhere") is None


def test_it_reads_this_process() -> None:
    assert tree_bytes(os.getpid()) > 10_000_000


def test_the_threads_of_triton_are_looked_at_once_however_many_models_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process(tmp_path, 1, 100, "2 3 4")
    for pid, model in ((2, "a"), (3, "b"), (4, "c")):
        process(tmp_path, pid, 10, "", f"/s/triton_python_backend_stub /m/{model}/1/model.py")
    looked_at: list[str] = []
    scandir = os.scandir

    def seen(path: Path) -> Any:
        looked_at.append(path.parent.name)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", seen)

    assert sorted(held_by(1, tmp_path).model_bytes) == ["a", "b", "c"]
    assert sorted(looked_at) == ["1", "2", "3", "4"]
