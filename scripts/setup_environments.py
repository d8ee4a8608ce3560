"""Makes the environments that Synapse runs, is tested and is deployed from.

`scripts/setup NAME…` starts this with whatever python3 there is: Python 3.7 must understand it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import sys
import threading
import time
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Callable  # noqa: UP035 - Python 3.7

from setup_node import Node
from setup_python import Python, PythonRange, SetupError, find_python
from setup_venv import Running, Venv, VenvSpec

ROOT = Path(__file__).resolve().parent.parent
ANY = PythonRange((3, 11), (3, 14))
# Triton's Python backend needs numpy 1, which has no wheels for Python 3.13.
TRITON = PythonRange((3, 11), (3, 12))
SPECS = {
    spec.name: spec
    for spec in (
        VenvSpec("app", "the server", ".venv", ANY, 400, project=True),
        VenvSpec(
            "dev", "the development tools", ".venv", ANY, 1200, includes=("app",), project=True
        ),
        VenvSpec("worker", "the Triton worker", ".venv-worker", TRITON, 1000),
        VenvSpec("sam", "the AWS SAM tools", ".venv-sam", ANY, 800),
        VenvSpec("ministack", "the AWS emulator", ".venv-ministack", ANY, 500),
        VenvSpec("clients", "the API's clients", ".venv-clients", ANY, 900),
        VenvSpec("peers", "the systems we compare with", ".venv-peers", ANY, 1200),
        VenvSpec("bentoml", "BentoML, to compare with", ".venv-bentoml", ANY, 800),
        VenvSpec("tools", "the maintainer's tools", ".venv-tools", ANY, 300),
    )
}
NODE = "node"
AT_ONCE = 2
HEARTBEAT_S = 10
FREE_SPACE = "free some space, then run this again"


class Progress:
    """Says what is under way, each step in its own lines, with a sign of life now and then."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._notes: dict[int, tuple[str, str]] = {}
        self._started: dict[int, float] = {}
        self._guard = threading.Lock()
        self._over = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def start(self, step: int, what: str, detail: str) -> None:
        with self._guard:
            self._started[step] = time.monotonic()
            self._notes[step] = (what, "started")
            self._say(step, f"{what} ({detail}) …")

    def note(self, step: int, text: str) -> None:
        with self._guard:
            self._notes[step] = (self._notes[step][0], text)

    def done(self, step: int) -> None:
        with self._guard:
            what, _ = self._notes.pop(step)
            self._say(step, f"{what}: done in {self._age_s(step):.0f} s")

    def close(self) -> None:
        self._over.set()

    def _age_s(self, step: int) -> float:
        return time.monotonic() - self._started[step]

    def _say(self, step: int, text: str) -> None:
        print(f"[{step}/{self._total}] {text}", flush=True)

    def _beat(self) -> None:
        while not self._over.wait(HEARTBEAT_S):
            with self._guard:
                for step, (what, text) in sorted(self._notes.items()):
                    self._say(step, f"{what}: {text}, {self._age_s(step):.0f} s so far")


def main(names: list[str]) -> int:
    """Makes what is named; the exit status tells whether all of it is there."""
    unknown = [name for name in names if name not in SPECS and name != NODE]
    if unknown or not names:
        known = ", ".join([*SPECS, NODE])
        print(f"setup: say which environments to make, of: {known}", file=sys.stderr)
        return 2
    running = Running()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        set_up(without_included(names), running)
    except SetupError as error:
        print(f"setup: {error.cause}\n  remedy: {error.remedy}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nsetup: interrupted; run it again to go on", file=sys.stderr)
        return 130
    except OSError as error:
        remedy = FREE_SPACE if error.errno == errno.ENOSPC else f"check {ROOT}, then run this again"
        print(f"setup: {error}\n  remedy: {remedy}", file=sys.stderr)
        return 1
    finally:
        running.stop()
    return 0


def without_included(names: list[str]) -> list[str]:
    """Drops what another one named includes, and doubles."""
    included = {inner for name in names if name in SPECS for inner in SPECS[name].includes}
    return [name for name in dict.fromkeys(names) if name not in included]


def set_up(names: list[str], running: Running) -> None:
    chosen = None
    if os.environ.get("SYNAPSE_PYTHON"):
        chosen = find_python(ANY, "Synapse", os.environ)
    venvs = [Venv(SPECS[name], ROOT, running) for name in names if name != NODE]
    node = Node(ROOT, running) if NODE in names else None

    def stale() -> tuple[list[Venv], Node | None]:
        return (
            [venv for venv in venvs if not venv.is_fresh(chosen)],
            node if node is not None and not node.is_fresh() else None,
        )

    if stale() == ([], None):
        return
    with (ROOT / ".setup.lock").open("w") as lock:
        wait_for_turn(lock.fileno())
        running.lock = lock.fileno()
        make_all(*stale(), running)


def wait_for_turn(lock: int) -> None:
    """One set-up at a time in a checkout: `make run` and `make test` may start together."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("setup: waiting for another set-up of this checkout", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)


def make_all(venvs: list[Venv], node: Node | None, running: Running) -> None:
    """Makes them side by side: one downloads while another installs."""
    pythons = [find_python(venv.spec.pythons, venv.spec.what, os.environ) for venv in venvs]
    check_disk(sum(venv.spec.disk_mb for venv in venvs))
    progress = Progress(len(venvs) + (node is not None))
    jobs = [
        venv_job(venv, python, step, progress)
        for step, (venv, python) in enumerate(zip(venvs, pythons), 1)  # noqa: B905 - Python 3.7
    ]
    if node is not None:
        jobs.append(node_job(node, len(jobs) + 1, progress))
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        run_jobs(pool, jobs)
    finally:
        progress.close()
        running.stop()
        pool.shutdown()


def run_jobs(pool: ThreadPoolExecutor, jobs: list[Callable[[], None]]) -> None:
    futures: list[Future[None]] = [pool.submit(job) for job in jobs]
    finished, waiting = wait(futures, return_when=FIRST_EXCEPTION)
    for future in waiting:
        future.cancel()
    for future in finished:
        future.result()


def venv_job(venv: Venv, python: Python, step: int, progress: Progress) -> Callable[[], None]:
    def job() -> None:
        spec = venv.spec
        detail = f"{spec.folder}, Python {python.version_text}, {venv.package_count()} packages"
        progress.start(step, spec.what, detail)
        venv.make(python, lambda text: progress.note(step, text))
        progress.done(step)

    return job


def node_job(node: Node, step: int, progress: Progress) -> Callable[[], None]:
    def job() -> None:
        progress.start(step, "the Node.js tools", "node_modules, npm")
        node.make()
        progress.done(step)

    return job


def check_disk(needed_mb: int) -> None:
    free_mb = shutil.disk_usage(str(ROOT)).free // 2**20
    if free_mb < needed_mb:
        raise SetupError(
            f"set-up needs about {needed_mb} MB in {ROOT}, and {free_mb} MB are free",
            FREE_SPACE,
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
