from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from synapse_worker import launch
from tests.patience import PATIENCE_S, wait_until

BACKEND = """
import time
from synapse_worker.backends.lifeline import die_with_parent
die_with_parent()
time.sleep(3)
"""


def ended_with(triton_pid: int) -> int:
    env = {**os.environ, "SYNAPSE_TRITON_PID": str(triton_pid), "PYTHONPATH": str(Path("workers"))}
    return subprocess.run([sys.executable, "-c", BACKEND], env=env, timeout=PATIENCE_S).returncode


def test_a_backend_that_starts_when_triton_is_gone_ends_at_once() -> None:
    assert ended_with(triton_pid=2**22 + 1) == 1, "it would hold its model for ever"


def test_a_backend_lives_as_long_as_triton() -> None:
    assert ended_with(triton_pid=os.getpid()) == 0


HOLDS_THE_INTERPRETER = """
import ctypes, os, time
from synapse_worker.backends import lifeline

os.environ["SYNAPSE_TRITON_PID"] = str(os.getppid())
lifeline.STUCK_S = 1.0
lifeline.die_with_parent()
time.sleep(0.2)
ctypes.PyDLL(None).sleep(3600)
"""


def test_a_process_whose_interpreter_is_held_for_ever_ends_all_the_same() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", HOLDS_THE_INTERPRETER],
        env={**os.environ, "PYTHONPATH": "workers"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert ended.returncode == 1
    assert "Timeout" in ended.stderr


TRITON = """
import pathlib, subprocess, sys, time
backends = [
    subprocess.Popen([sys.executable, "-c", sys.argv[1], f"{sys.argv[2]}/{n}"], close_fds=False)
    for n in "12"
]
while len(list(pathlib.Path(sys.argv[2]).iterdir())) < 2: time.sleep(0.01)
time.sleep(0.1)
print(*(backend.pid for backend in backends), flush=True)
time.sleep(3600)
"""

CALLS_TRITON_FOR_EVER = """
import ctypes, sys
from synapse_worker.backends.lifeline import die_with_parent
die_with_parent()
open(sys.argv[1], "w").close()
ctypes.PyDLL(None).sleep(3600)
"""


def test_backends_that_call_a_triton_which_dies_end_with_it(tmp_path: Path) -> None:
    (up := tmp_path / "up").mkdir()
    command = [sys.executable, "-c", TRITON, CALLS_TRITON_FOR_EVER, str(up)]
    launched = [sys.executable, launch.__file__, str(os.getpid()), str(tmp_path / "lock"), *command]
    env = {**os.environ, "PYTHONPATH": "workers"}
    with subprocess.Popen(launched, env=env, stdout=subprocess.PIPE, text=True) as triton:
        assert triton.stdout is not None
        backends = triton.stdout.readline().split()
        assert [runs(pid) for pid in backends] == [True, True]
        triton.kill()

    wait_until(lambda: not any(map(runs, backends)))


ARMS_NO_CLOCK = """
import faulthandler, time
armed = []
faulthandler.dump_traceback_later = lambda *_, **__: armed.append(1)
from synapse_worker.backends.lifeline import die_with_parent
die_with_parent()
time.sleep(1)
print(armed)
"""


def test_no_clock_ends_a_backend_that_was_stopped_for_long_and_wakes_up(tmp_path: Path) -> None:
    # The clock would not know that nobody could put it off: in every second pause or so it wins.
    triton = "import subprocess, sys; subprocess.run(sys.argv[1:], close_fds=False)"
    backend = [sys.executable, "-c", ARMS_NO_CLOCK]
    command = [sys.executable, "-c", triton, *backend]
    launched = [sys.executable, launch.__file__, str(os.getpid()), str(tmp_path / "lock"), *command]
    env = {**os.environ, "PYTHONPATH": "workers"}

    ended = subprocess.run(launched, env=env, capture_output=True, text=True, timeout=PATIENCE_S)

    assert ended.stdout == "[]\n"


def runs(pid: str) -> bool:
    """Whether the process lives (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
