"""Makes one virtual environment from one hashed lock, and knows whether it is still good.

A stamp inside the environment, written last, says what it was made from. No stamp means a half-made
environment, which is made anew. Runs on Python 3.7 and newer, like setup_python.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable  # noqa: UP035 - Python 3.7

from setup_python import Python, PythonRange, SetupError

STAMP = "synapse-setup.json"
LOG = "setup.log"
NO_STAMP: dict[str, Any] = {"locks": {}}

LIST_INSTALLED = (
    "from importlib.metadata import distributions\n"
    "for found in distributions(): print(found.metadata['Name'])"
)

Note = Callable[[str], None]


@dataclass(frozen=True)
class VenvSpec:
    """What an environment is made of."""

    name: str
    what: str
    folder: str
    pythons: PythonRange
    # Download, unpacked wheels and the installed files, at the peak.
    disk_mb: int
    # Locks that this one includes: an environment made from it serves them too.
    includes: tuple[str, ...] = ()
    # Whether the project itself is installed, editable.
    project: bool = False


@dataclass
class Running:
    """The child processes under way, so that an interrupt ends them and all that they started.

    They inherit `lock`: should this process be killed, the next set-up waits until they are gone.
    """

    lock: int | None = None
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    guard: threading.Lock = field(default_factory=threading.Lock)
    stopped: bool = False

    def start(self, command: list[str], cwd: Path) -> subprocess.Popen[bytes]:
        with self.guard:
            if self.stopped:
                raise SetupError("interrupted", "run it again: it goes on where it stopped")
            process = subprocess.Popen(
                command,
                cwd=str(cwd),
                env=child_environ(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=() if self.lock is None else (self.lock,),
                start_new_session=True,
            )
            self.processes.append(process)
            return process

    def stop(self) -> None:
        with self.guard:
            self.stopped = True
            for process in self.processes:
                if process.poll() is None:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)


def child_environ() -> dict[str, str]:
    """The environment for pip and npm, less what would send packages elsewhere."""
    misleading = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER")
    return {key: value for key, value in os.environ.items() if key not in misleading}


def digest(*paths: Path) -> str:
    total = hashlib.sha256()
    for path in paths:
        total.update(path.read_bytes())
    return total.hexdigest()


def name_of(requirement: str) -> str:
    """A package's name as locks spell it, whatever its metadata makes of it."""
    return re.sub(r"[-_.]+", "-", requirement.strip()).lower()


class Venv:
    """One environment of the checkout at `root`."""

    def __init__(self, spec: VenvSpec, root: Path, running: Running) -> None:
        self.spec = spec
        self.root = root
        self.folder = root / spec.folder
        self.python = self.folder / "bin" / "python"
        self._running = running

    def lock(self, name: str) -> Path:
        return self.root / "requirements" / (name + ".txt")

    def package_count(self) -> int:
        return len(re.findall(r"^[a-z0-9]", self.lock(self.spec.name).read_text(), re.MULTILINE))

    def is_fresh(self, chosen: Python | None) -> bool:
        """Whether there is nothing to do. Starts no process: this is what every start pays."""
        stamp = self._stamp()
        return (
            self._is_usable(stamp, chosen)
            and stamp["locks"].get(self.spec.name) == digest(self.lock(self.spec.name))
            and (not self.spec.project or stamp["project"] == self._project_digest())
        )

    def make(self, python: Python, note: Note) -> None:
        """Brings the environment up to its lock, from what is there or from nothing."""
        stamp = self._stamp()
        wanted = {name: digest(self.lock(name)) for name in (self.spec.name, *self.spec.includes)}
        known = stamp["locks"] if self._is_usable(stamp, python) else {}
        self._forget_stamp()
        if not known:
            note("making the environment")
            self._create(python)
        if known.get(self.spec.name) != wanted[self.spec.name]:
            self._install_lock(python, note)
            if known and set(known) <= set(wanted):
                self._remove_strangers(python, note)
        if self.spec.project:
            note("installing the project")
            options = ["--no-deps", "--no-index", "--no-build-isolation", "-e", "."]
            self._pip(python, "install", options, None)
        self._write_stamp(python, {**known, **wanted})

    def _project_digest(self) -> str:
        return digest(self.root / "pyproject.toml")

    def _stamp(self) -> dict[str, Any]:
        try:
            stamp = json.loads((self.folder / STAMP).read_text())
        except (OSError, ValueError):
            return NO_STAMP
        return stamp if isinstance(stamp, dict) and "locks" in stamp else NO_STAMP

    def _is_usable(self, stamp: dict[str, Any], chosen: Python | None) -> bool:
        """Whether what the stamp describes is still there: same place, same Python."""
        return (
            bool(stamp["locks"])
            and stamp["root"] == str(self.root)
            and self.python.exists()
            and stamp["executable"] == os.path.realpath(str(self.python))
            and (chosen is None or stamp["python"] == chosen.version_text)
        )

    def _forget_stamp(self) -> None:
        if self.folder.exists():
            stamp = self.folder / STAMP
            if stamp.exists():
                stamp.unlink()

    def _write_stamp(self, python: Python, locks: dict[str, str]) -> None:
        stamp = {
            "locks": locks,
            "project": self._project_digest() if self.spec.project else None,
            "root": str(self.root),
            "python": python.version_text,
            "executable": os.path.realpath(str(self.python)),
        }
        (self.folder / STAMP).write_text(json.dumps(stamp, indent=1) + "\n")

    def _create(self, python: Python) -> None:
        if self.folder.exists():
            shutil.rmtree(str(self.folder))
        options = [] if python.has_ensurepip else ["--without-pip"]
        lines = self._run([python.path, "-I", "-m", "venv", *options, str(self.folder)], None)
        if lines is not None:
            raise explain(lines, f"making {self.spec.folder} failed", None)

    def _install_lock(self, python: Python, note: Note) -> None:
        total = self.package_count()
        lock = str(self.lock(self.spec.name).relative_to(self.root))
        collected = 0

        def count(line: str) -> None:
            nonlocal collected
            if line.startswith(("Collecting ", "Requirement already satisfied")):
                collected += 1
                note(f"{min(collected, total)} of {total} packages")
            elif line.startswith("Installing "):
                note(f"installing {total} packages")

        options = ["--require-hashes", "--no-deps", "--only-binary=:all:", "--progress-bar=off"]
        self._pip(python, "install", [*options, "-r", lock], count)

    def _remove_strangers(self, python: Python, note: Note) -> None:
        """What an older lock held and this one does not would hide a missing requirement."""
        note("removing what is no longer needed")
        lock = self.lock(self.spec.name).read_text()
        wanted = {name_of(line) for line in re.findall(r"^[a-z0-9][^=]*", lock, re.MULTILINE)}
        installed: list[str] = []
        self._run([str(self.python), "-I", "-c", LIST_INSTALLED], installed.append)
        strangers = {name_of(line) for line in installed} - wanted - {"pip", "synapse"}
        if strangers:
            self._pip(python, "uninstall", ["--yes", *sorted(strangers)], None)

    def _pip(self, python: Python, command: str, options: list[str], on_line: Note | None) -> None:
        own = [str(self.python), "-I", "-m", "pip"]
        lent = [python.path, "-I", "-m", "pip", "--python", str(self.python)]
        quiet = ["--no-input", "--disable-pip-version-check", "--no-color"]
        pip = own if python.has_ensurepip else lent
        lines = self._run([*pip, command, *quiet, *options], on_line)
        if lines is not None:
            raise explain(lines, f"installing {self.spec.what} failed", self.folder / LOG)

    def _run(self, command: list[str], on_line: Note | None) -> list[str] | None:
        """Runs to the end; None when it went well, else what it said."""
        lines = []
        with self._running.start(command, self.root) as process:
            for raw in process.stdout or ():
                line = raw.decode(errors="replace").rstrip()
                lines.append(line)
                if on_line is not None:
                    on_line(line)
        # A full disk has no room for the log of how it filled.
        with contextlib.suppress(OSError):
            (self.folder / LOG).write_text("\n".join(lines) + "\n")
        return lines if process.returncode != 0 else None


# What a line of pip's (or npm's) output says about the cause, most telling first.
CAUSES = (
    (r"No space left on device|ENOSPC", "the disk is full", "free some space, then run this again"),
    (
        r"CERTIFICATE_VERIFY_FAILED|SSLError|SELF_SIGNED_CERT",
        "the package index's certificate is not trusted",
        "point PIP_CERT (and NODE_EXTRA_CA_CERTS) at your proxy's certificate, then run this again",
    ),
    (
        r"THESE PACKAGES DO NOT MATCH THE HASHES|EINTEGRITY",
        "a downloaded package is not the one that was locked",
        "something between here and the package index changed it: check your mirror or proxy",
    ),
    (
        r"NewConnectionError|Max retries exceeded|name resolution|Connection refused|timed out"
        r"|Network is unreachable|ENOTFOUND|ECONNREFUSED|EAI_AGAIN|ETIMEDOUT|ProxyError",
        "the package index cannot be reached",
        "check the network, the proxy and pip's own settings, then run this again",
    ),
    (
        r"No matching distribution found for (?P<it>\S+)",
        "there is no ready-made package of {it} for this machine",
        "Synapse is packaged for Linux with glibc 2.28 or newer, on x86_64 and aarch64",
    ),
)


def explain(lines: list[str], what_failed: str, log: Path | None) -> SetupError:
    """Turns what a failed command said into one line of cause and one of remedy."""
    text = "\n".join(lines)
    for pattern, cause, remedy in CAUSES:
        match = re.search(pattern, text)
        if match:
            return SetupError(what_failed + ": " + cause.format(**match.groupdict()), remedy)
    errors = [line for line in lines if "error" in line.lower()] or lines or ["no message"]
    where = f"see {log}" if log is not None else "see above"
    return SetupError(f"{what_failed}: {errors[-1].strip()}", where)
