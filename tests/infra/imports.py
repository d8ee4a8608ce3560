"""Imports code in a Python that has certain packages only; run by `test_packages.py`.

Given on standard input as JSON: `known`, the packages behind each module; `packages`, those that
all may import, and `code` that imports what all need; and in `each`, by name, more packages and
more code. Each is tried in a copy of the process, so that what one has loaded no other sees, and
what all need is loaded once. Written: the last line of what was raised, by name, or nothing.
"""

from __future__ import annotations

import importlib.abc
import json
import os
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any


def normal(package: str) -> str:
    return re.sub("[-_.]+", "-", package).lower()


class Refuse(importlib.abc.MetaPathFinder):
    """Hides what comes from no package that is `locked`."""

    def __init__(self, known: Mapping[str, Sequence[str]], locked: set[str]) -> None:
        self.known, self.locked = known, locked

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        owners = {normal(owner) for owner in self.known.get(name.partition(".")[0], [])}
        if owners and owners.isdisjoint(self.locked):
            raise ModuleNotFoundError(f"{name} is of {owners}, which is not locked", name=name)


def fault_of(code: str) -> str:
    try:
        exec(code, {"__name__": "tried"})
    except BaseException:  # noqa: BLE001 - it is told
        return traceback.format_exc().strip().splitlines()[-1]
    return ""


def fault_in_a_copy(code: str) -> str:
    """What `code` raises in a child of this process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.write(writer, fault_of(code).encode()[:4096])
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as told:
        fault = told.read().decode()
    _, status = os.waitpid(child, 0)
    return fault or ("" if status == 0 else f"ended with {status}")


def main() -> None:
    asked = json.load(sys.stdin)
    refuse = Refuse(asked["known"], set(asked["packages"]))
    sys.meta_path.insert(0, refuse)
    faults = {"": fault_of(asked["code"])}
    for name, (packages, code) in asked["each"].items():
        refuse.locked = {*asked["packages"], *packages}
        faults[name] = fault_in_a_copy(code)
    json.dump(faults, sys.stdout)


if __name__ == "__main__":
    main()
