"""Installs the Node.js development tools and test clients, where there is npm to do it with.

They only check and test: a machine without Node.js runs, tests and deploys Synapse without them.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from setup_venv import Running, digest, explain

STAMP = ".synapse-setup"


class Node:
    """`node_modules`, as package-lock.json has it."""

    def __init__(self, root: Path, running: Running) -> None:
        self._root = root
        self._stamp = root / "node_modules" / STAMP
        self._running = running

    def is_fresh(self) -> bool:
        """Without npm there is nothing to do, and whoever needs the tools says so."""
        lock = self._root / "package-lock.json"
        if shutil.which("npm") is None or not lock.exists():
            return True
        return self._stamp.exists() and self._stamp.read_text() == digest(lock)

    def make(self) -> None:
        if self._stamp.exists():
            self._stamp.unlink()
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        process = self._running.start(command, self._root)
        output, _ = process.communicate()
        if process.returncode != 0:
            lines = output.decode(errors="replace").splitlines()
            raise explain(lines, "installing the Node.js tools failed", None)
        self._stamp.write_text(digest(self._root / "package-lock.json"))
