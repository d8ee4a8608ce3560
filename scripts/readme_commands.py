"""Runs the commands that README.md tells a newcomer to type, so that they go on working.

A fenced sh block that follows `<!-- ci:NAME -->` is run: `test` until it ends; `run` in the
background, as in a terminal, while `curl` is sent to it, and then it is interrupted.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^<!-- ci:(\w+) -->\n+```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# The first start installs the environments.
START_TIMEOUT_S = 900
CURL_TIMEOUT_S = 120
STOP_TIMEOUT_S = 30
POLL_S = 0.5
# Put into the environment of what is started here, and so inherited by all that it starts.
MARK = "SYNAPSE_README_RUN"


class ReadmeError(Exception):
    """What README.md promises does not hold."""


def commands(markdown: str) -> dict[str, str]:
    """The marked blocks, by name."""
    found: dict[str, str] = {}
    for name, block in BLOCK.findall(markdown):
        if name in found:
            raise ReadmeError(f"README.md has more than one block marked ci:{name}")
        found[name] = block
    return found


def block(markdown: str, name: str) -> str:
    found = commands(markdown)
    if name not in found:
        raise ReadmeError(f"README.md has no sh block marked <!-- ci:{name} -->")
    return found[name]


def base_url(curl: str) -> str:
    """The server that the curl commands talk to."""
    match = re.search(r"https?://(\[[0-9a-f:]+\]|[\w.-]+)(:\d+)?", curl)
    if match is None:
        raise ReadmeError("the block marked ci:curl names no URL")
    return match.group()


def run_test(markdown: str) -> None:
    status = subprocess.run(_shell(block(markdown, "test")), cwd=ROOT, check=False).returncode
    if status != 0:
        raise ReadmeError(f"the block marked ci:test ended with status {status}")


def run_server(markdown: str) -> None:
    """Starts the server as printed, sends the curl lines as printed, and stops it with Ctrl-C."""
    start, curl = block(markdown, "run"), block(markdown, "curl")
    url = base_url(curl)
    if answers(url):
        raise ReadmeError(f"something answers at {url} before the server is started")
    mark = uuid.uuid4().hex
    with _heeding_interrupts():
        started = subprocess.Popen(
            _shell(start),
            cwd=ROOT,
            env={**os.environ, MARK: mark},
            stdin=subprocess.DEVNULL,
            process_group=0,
        )
    with started as server:
        try:
            _wait_until_it_answers(url, server)
            _check_answer(curl)
        finally:
            _interrupt(server)
            left = _kill_what_is_left(mark)
    if left:
        raise ReadmeError(f"Ctrl-C left processes behind: {', '.join(left)}")


def wait_for(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Whether the condition came true in time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(POLL_S)
    return condition()


def processes_with(mark: str) -> dict[int, str]:
    """The processes that inherited the mark: their command lines by their ids."""
    wanted = f"{MARK}={mark}".encode()
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found[int(folder.name)] = words.strip()
        except OSError:
            continue  # It ended meanwhile, or is not ours to read.
    return found


def _shell(script: str) -> list[str]:
    return ["bash", "-euo", "pipefail", "-c", script]


@contextlib.contextmanager
def _heeding_interrupts() -> Iterator[None]:
    """What is started meanwhile heeds Ctrl-C, as from a terminal.

    Started from a background job, this may itself be told to ignore it, and would hand that on.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def answers(url: str) -> bool:
    """Whether the server there says that it is ready."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as response:
            return int(response.status) == 200
    except urllib.error.HTTPError:
        return False  # It listens, and is not ready.
    except OSError:
        return False


def _wait_until_it_answers(url: str, server: subprocess.Popen[bytes]) -> None:
    wait_for(lambda: server.poll() is not None or answers(url), START_TIMEOUT_S)
    if server.poll() is not None:
        raise ReadmeError(f"the server ended with status {server.returncode} before it answered")
    if not answers(url):
        raise ReadmeError(f"nothing answers at {url} after {START_TIMEOUT_S} s")


def _check_answer(curl: str) -> None:
    answer = subprocess.run(
        _shell(curl), cwd=ROOT, capture_output=True, text=True, timeout=CURL_TIMEOUT_S, check=False
    )
    print(answer.stdout, flush=True)
    if answer.returncode != 0 or "COMPLETED" not in answer.stdout:
        raise ReadmeError(
            f"the block marked ci:curl ended with status {answer.returncode} and no COMPLETED: "
            f"{answer.stdout}{answer.stderr}"
        )


def _interrupt(server: subprocess.Popen[bytes]) -> None:
    """Ctrl-C, as a terminal sends it: to the whole process group."""
    if server.poll() is not None:
        return
    os.killpg(server.pid, signal.SIGINT)
    try:
        server.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        raise ReadmeError(f"the server did not stop within {STOP_TIMEOUT_S} s of Ctrl-C") from None


def _kill_what_is_left(mark: str) -> list[str]:
    """What did not end by itself in time, as command lines."""
    wait_for(lambda: not processes_with(mark), STOP_TIMEOUT_S)
    left = processes_with(mark)
    for process in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    return list(left.values())


def main(arguments: list[str]) -> int:
    """`test` or `run`; the exit status tells whether README.md keeps its word."""
    markdown = (ROOT / "README.md").read_text()
    modes = {"test": run_test, "run": run_server}
    if len(arguments) != 1 or arguments[0] not in modes:
        print(f"usage: readme_commands.py {'|'.join(modes)}", file=sys.stderr)
        return 2
    try:
        modes[arguments[0]](markdown)
    except ReadmeError as error:
        print(f"README: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
