"""The pure parts of keeping Triton alive."""

import asyncio
import itertools
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from synapse_worker import health, stubs, supervisor
from synapse_worker.backoff import RestartBudget, RestartPolicy
from synapse_worker.config import WorkerConfig
from synapse_worker.diagnosis import diagnose
from synapse_worker.errors import PortTaken, TritonCrash, WorkerError
from synapse_worker.stubs import LET_GO_S, Gone, live_stubs, lost_models
from synapse_worker.supervisor import Supervisor
from tests.patience import PATIENCE_S


def test_delays_double_up_to_a_ceiling_with_full_jitter() -> None:
    policy = RestartPolicy(base_delay_s=1, max_delay_s=4, max_restarts=9, window_s=100)
    budget = RestartBudget(policy)

    assert [budget.delay_after_death(t, lambda: 1.0) for t in range(5)] == [1, 2, 4, 4, 4]
    assert budget.delay_after_death(5, lambda: 0.25) == 1


def test_the_breaker_opens_on_a_crash_loop_and_forgets_old_deaths() -> None:
    policy = RestartPolicy(base_delay_s=1, max_restarts=2, window_s=10)
    budget = RestartBudget(policy)

    assert budget.delay_after_death(0, lambda: 1.0) == 1
    assert budget.delay_after_death(1, lambda: 1.0) == 2
    assert budget.delay_after_death(20, lambda: 1.0) == 1, "the first two are out of the window"
    assert budget.delay_after_death(21, lambda: 1.0) == 2
    assert budget.delay_after_death(22, lambda: 1.0) is None


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        (
            "failed to start GRPC service: Unavailable - Socket '127.0.0.1:8001' already in use ",
            "127.0.0.1:8001 is already in use",
        ),
        (
            "/x/triton_python_backend_stub: error while loading shared libraries: "
            "libpython3.11.so.1.0: cannot open shared object file: No such file or directory",
            "The shared library libpython3.11.so.1.0 is missing",
        ),
        (
            "E1121 04:11:11.2 65 model_lifecycle.cc:642] \"failed to load 'm' version 1: Internal: "
            "ImportError: libgomp.so.1: cannot open shared object file: No such file",
            "The shared library libgomp.so.1 is missing",
        ),
        (
            "E1121 04:11:11.2 65 model_lifecycle.cc:642] \"failed to load 'm' version 1: "
            'Internal: WorkerError: No GGUF file. Install it"',
            "Triton could not load m: WorkerError: No GGUF file. Install it",
        ),
        (
            "E1121 04:11:11.2 65 model_lifecycle.cc:642] \"failed to load 'm' version 1: "
            "Internal: WorkerError: The model file /x does not exist. Correct gguf_path"
            r'\n\nAt:\n  /x/llama_engine.py(67): find_gguf\n  /x/llamacpp.py(39): initialize\n"',
            "Triton could not load m: WorkerError: The model file /x does not exist. "
            "Correct gguf_path",
        ),
        (
            'E1121 04:11:11.2 65 model_repository_manager.cc:1460] "Poll failed for model '
            "directory 'm': Internal: unable to read config.pbtxt\"",
            "Triton could not read m: Internal: unable to read config.pbtxt",
        ),
        (
            "I1123 17:41:17.26 129 pb_stub.cc:2105]  Failed to preinitialize Python stub: Python "
            "model file not found in '/m/1/model.py'",
            "Triton could not load a model: Python model file not found in '/m/1/model.py'",
        ),
        ("error: creating server: something odd", "Triton says: creating server: something odd"),
    ],
)
def test_the_log_is_searched_for_the_reason(log: str, cause: str) -> None:
    found = diagnose(f"I1121 all is well\n{log}\nerror: creating server: x", 1, "the.log")

    assert found.cause == cause
    assert "\n" not in str(found)


def test_a_copied_folder_whose_model_kept_its_name_is_told_with_the_line_to_mend() -> None:
    log = (
        'E1123 04:40:09.3 65 server.cc:241] "CudaDriverHelper has not been initialized."\n'
        'E1123 04:40:09.3 65 model_repository_manager.cc:1460] "Poll failed for model directory '
        "'my-llm': unexpected directory name 'my-llm' for model 'echo', directory name must equal "
        'model name"\nerror: creating server: Internal - failed to load all models'
    )

    assert str(diagnose(log, 1, "the.log")) == (
        "The config.pbtxt in the folder my-llm says that the model is called echo. "
        'Write name: "my-llm" into it'
    )


@pytest.mark.parametrize(
    ("exit_code", "cause"),
    [
        (None, "Triton did not become ready in time"),
        (-9, "Triton was killed by signal 9"),
        (3, "Triton ended with exit code 3"),
    ],
)
def test_without_a_reason_the_ending_is_told(exit_code: int | None, cause: str) -> None:
    assert str(diagnose("", exit_code, "the.log")) == f"{cause}. See the.log"


def test_a_triton_that_fell_over_by_itself_is_told_from_one_that_was_ended() -> None:
    told = "E1121 04:11:11.2 65 model_lifecycle.cc:642] \"failed to load 'm' version 1: no\""

    assert type(diagnose("I1121 all is well", -6, "the.log")) is TritonCrash
    assert type(diagnose("I1121 all is well", -11, "the.log")) is TritonCrash
    assert type(diagnose("I1121 all is well", -9, "the.log")) is WorkerError
    assert type(diagnose(told, -6, "the.log")) is WorkerError


def test_a_port_that_is_taken_is_told_from_other_reasons() -> None:
    log = "failed to start HTTP service: Unavailable - Socket '127.0.0.1:8000' already in use "

    assert type(diagnose(log, 1, "the.log")) is PortTaken


def process(proc: Path, pid: int, *arguments: str) -> None:
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "cmdline").write_text("\0".join([*arguments, ""]) if arguments else "")


def test_only_living_stubs_of_triton_are_counted(tmp_path: Path) -> None:
    (tmp_path / "5" / "task" / "5").mkdir(parents=True)
    (tmp_path / "5" / "task" / "5" / "children").write_text("6 7 8 9 ")
    process(tmp_path, 6, "/x/triton_python_backend_stub", "/models/echo/1/model.py", "region")
    process(tmp_path, 7)  # a zombie
    process(tmp_path, 8, "sleep", "5")

    assert live_stubs(5, tmp_path) == {6: "echo"}


def test_a_reloaded_model_is_not_lost_but_a_missing_one_is() -> None:
    assert lost_models({1: "a", 2: "b"}, {3: "a", 2: "b"}) == set()
    assert lost_models({1: "a", 2: "b"}, {2: "b"}) == {"a"}


async def test_a_model_without_a_stub_is_held_until_it_is_let_go_of_or_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unloading = {"a", "b"}

    async def tell(address: str, timeout_s: float) -> set[str]:
        if address == "away":
            raise ConnectionRefusedError
        return unloading

    monkeypatch.setattr(stubs, "unloading_models", tell)
    gone = Gone()

    gone.note({"a", "b"}, {3: "b"}, at=10.0)
    assert await gone.still_held("triton", 10.0 + LET_GO_S - 0.1) is None, "it has a while"
    gone.note((), {3: "b"}, at=10.0 + LET_GO_S)
    assert await gone.still_held("away", 10.0 + LET_GO_S) is None
    assert await gone.still_held("triton", 10.0 + LET_GO_S) == "a", "b has a stub, at work"

    unloading.remove("a")
    assert await gone.still_held("triton", 20.0) is None
    unloading.add("a")
    assert await gone.still_held("triton", 20.0) is None, "what is unloading now is another"

    gone.note({"a"}, {}, at=20.0)
    gone.note((), {4: "a"}, at=21.0)
    assert await gone.still_held("triton", 99.0) is None, "it was loaded again"


def test_a_triton_that_ends_while_it_is_looked_at_has_no_stubs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "7" / "task").mkdir(parents=True)

    def gone(path: object = ".") -> object:
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "scandir", gone)

    assert live_stubs(7, tmp_path) == {}


def illness() -> "asyncio.Task[WorkerError]":
    """Of a Triton whose answers and processes are patched in; it is looked at all the time."""
    config = WorkerConfig(models=("m",), venv=None, health_interval_s=0.0, hang_timeout_s=60.0)
    triton: Any = SimpleNamespace(pid=1, bound_log=lambda: None)
    return asyncio.create_task(Supervisor(config)._wait_for_illness(triton))


@pytest.mark.parametrize("ready", [200, 400])
async def test_a_backend_that_died_is_seen_whatever_triton_says_of_its_model(
    monkeypatch: pytest.MonkeyPatch, ready: int
) -> None:
    """Triton 2.51 calls such a model ready, later ones do not; in its repository it is either way.

    As it looks while it is there, and when it has died.
    """
    seen = itertools.chain([{7: "m"}], itertools.repeat({}))

    async def status(host: str, port: int, path: str, timeout_s: float) -> int:
        return ready if path == "/v2/models/m/ready" else 200

    async def index(address: str, timeout_s: float) -> dict[str, set[str]]:
        return {"m": {"READY"}}

    monkeypatch.setattr(supervisor, "http_status", status)
    monkeypatch.setattr(supervisor, "live_stubs", lambda pid: next(seen))
    monkeypatch.setattr(health, "model_states", index)

    async with asyncio.timeout(PATIENCE_S):
        assert (await illness()).cause == "The backend of m died"


async def test_a_triton_that_stood_still_with_its_supervisor_is_not_taken_for_one_that_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SimpleNamespace(now=0.0)
    answers: list[int | None] = []

    async def status(host: str, port: int, path: str, timeout_s: float) -> int | None:
        if len(answers) == 0:
            clock.now += 1000.0  # all stood still just when it was asked
            answers.append(None)
        elif len(answers) < 10:
            answers.append(200)
        else:
            clock.now += timeout_s
            answers.append(None)
        return answers[-1]

    monkeypatch.setattr(supervisor, "http_status", status)
    monkeypatch.setattr(supervisor, "live_stubs", lambda pid: {7: "m"})
    told_time = SimpleNamespace(monotonic=lambda: clock.now, time=time.time)
    monkeypatch.setattr(supervisor, "time", told_time)

    async with asyncio.timeout(PATIENCE_S):
        assert (await illness()).cause == "Triton no longer answers"

    assert answers.count(None) == 1 + 13, "60 s of questions that take 5 s each"
