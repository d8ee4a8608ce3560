"""`make chaos`: harm a real server at random for a while, and see whether it keeps its promises.

Every accepted job must end, once, with its own answer; records, answers and the usage report must
agree. The seed is printed; the same seed does the same faults in the same order.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.oracle import Violation
from tests.chaos.soak import KINDS, soak


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10_000))
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--only", default="", help=f"some of: {', '.join(KINDS)}")
    given = parser.parse_args()
    names = [name for name in given.only.split(",") if name]
    if unknown := set(names) - set(KINDS):
        parser.error(f"--only: {min(unknown)!r} is no fault; choose from: {', '.join(KINDS)}")
    print(f"seed {given.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as folder:
        running = soak(Path(folder), given.seed, 60.0 * given.minutes, names, _say)
        try:
            soaked = asyncio.run(running)
        except (Violation, ExceptionGroup) as broken:
            for error in _violations(broken):
                print(f"BROKEN with seed {given.seed}: {error}", file=sys.stderr)
            log = Path(folder, "server.log").read_text("utf-8", errors="replace")
            print(f"the server's log ends:\n{log[-20_000:]}", file=sys.stderr)
            return 1
    faults = ", ".join(f"{name} {count}" for name, count in sorted(soaked.faults.items()))
    print(
        f"{soaked.accepted} jobs accepted ({soaked.resent} requests had to be sent again), each "
        f"ended once: {dict(soaked.ends)}; faults: {faults}"
    )
    return 0


def _violations(broken: Violation | ExceptionGroup[Exception]) -> Sequence[Exception]:
    """What was broken; anything else that went wrong is raised on."""
    if isinstance(broken, Violation):
        return [broken]
    others = broken.subgroup(lambda error: not isinstance(error, Violation | ExceptionGroup))
    if others is not None:
        raise others
    return broken.exceptions


def _say(text: str) -> None:
    print(f"  {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
