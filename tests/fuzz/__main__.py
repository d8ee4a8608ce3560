"""`make fuzz`: ask a real server for what nobody should ask for, and judge all that it answers.

The seed is printed; the same seed makes the same inputs, though what they meet differs.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import warnings
from pathlib import Path

from tests.fuzz.campaign import NAMES, PARTS, Outcome, run
from tests.fuzz.ends import BROKEN

MIB = 1024 * 1024
INPUTS = 20_000
LOG_CHARS = 8_000
"""How much of the server's log is shown of a run that has found something."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=INPUTS, help=f"at least ({INPUTS:,})")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10_000))
    parser.add_argument("--only", default="", help=f"some of: {', '.join(PARTS)}")
    given = parser.parse_args()
    names = [name for name in given.only.split(",") if name]
    if unknown := set(names) - set(PARTS):
        parser.error(f"--only: {min(unknown)!r} is no part; choose from: {', '.join(NAMES)}")
    if given.inputs < 1:
        parser.error("--inputs: at least one")
    # Texts that are long on purpose make the strategies' own descriptions long.
    warnings.filterwarnings("ignore", message="Generating overly large repr")
    print(f"seed {given.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="fuzz-", ignore_cleanup_errors=True) as folder:
        outcome = run(Path(folder), given.seed, given.inputs, names, _say)
        if not outcome.is_good:
            log = Path(folder, "server.log").read_text("utf-8", errors="replace")
            broken = [log.index(mark) for mark in BROKEN if mark in log]
            start = max(0, min(broken, default=len(log) - LOG_CHARS) - 500)
            print(f"from the server's log:\n{log[start : start + LOG_CHARS]}", file=sys.stderr)
    _tell(outcome)
    if not outcome.is_good:
        print(f"BROKEN with seed {given.seed}", file=sys.stderr)
    return 0 if outcome.is_good else 1


def _tell(outcome: Outcome) -> None:
    record, memory = outcome.record, outcome.memory
    for where, fault in sorted(record.faults.items(), key=lambda each: -each[1].count):
        print(f"✗ {where} ({fault.count} times)\n    {fault.shown()}\n", file=sys.stderr)
    parts = ", ".join(f"{name} {count:,}" for name, count in record.inputs.items())
    statuses = ", ".join(
        f"{status or 'none'} {n:,}" for status, n in sorted(record.statuses.items())
    )
    print(
        f"{record.total:,} inputs in {outcome.seconds:.0f} s ({parts}) to {len(record.by_route)} "
        f"routes; answers: {statuses}; {outcome.accepted:,} jobs accepted, all ended; the server's "
        f"memory {memory.least / MIB:.0f} MiB at the start, {memory.most / MIB:.0f} at most, "
        f"{memory.last / MIB:.0f} at the end ({memory.growth():.0f} bytes an input in the second "
        f"half); {len(record.faults)} kinds of faults"
    )


def _say(text: str) -> None:
    print(f"  {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
