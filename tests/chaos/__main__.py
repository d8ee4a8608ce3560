"""`make chaos`: harm a real server at random for a while, and see whether it keeps its promises.

Every accepted job must end, once, with its own answer; records, answers and the usage report must
agree. The seed is printed; the same seed does the same faults in the same order.

With `--aws`, it is the deployed template on an emulator of AWS, whose power is cut, which freezes,
throttles, and delivers messages twice and late.

With `--lives`, no server is started: random lives of jobs are lived with the adapters of both
targets, AWS emulated, and with faults beneath them. Of one that breaks a promise the shortest form
that still does is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.chaos.cloud import CLOUD_FAULTS
from tests.chaos.cloud_soak import soak_cloud
from tests.chaos.harm import Soaked
from tests.chaos.oracle import Violation
from tests.chaos.soak import KINDS, soak
from tests.conftest import FAKE_AWS
from tests.lives.deployments import DEPLOYMENTS
from tests.lives.living import live


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10_000))
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--aws", action="store_true", help="the deployed template instead")
    parser.add_argument(
        "--only",
        default="",
        help=f"some of: {', '.join(KINDS)}; with --aws: {', '.join(CLOUD_FAULTS)}",
    )
    parser.add_argument("--lives", type=int, metavar="N", help="N lives in each of both targets")
    given = parser.parse_args()
    names = [name for name in given.only.split(",") if name]
    known = CLOUD_FAULTS if given.aws else KINDS
    if unknown := set(names) - set(known):
        parser.error(f"--only: {min(unknown)!r} is no fault; choose from: {', '.join(known)}")
    print(f"seed {given.seed}", flush=True)
    if given.lives is not None:
        return _live(given.lives, given.seed)
    if given.aws:
        return _soak(given.seed, lambda folder: _on_aws(folder, given.seed, given.minutes, names))
    return _soak(given.seed, lambda folder: _on_one(folder, given.seed, given.minutes, names))


def _live(lives: int, seed: int) -> int:
    os.environ |= FAKE_AWS
    for name in DEPLOYMENTS:
        started = time.monotonic()
        try:
            live(name, lives, seed)
        except Exception:  # noqa: BLE001 - whatever a life ends with is what was looked for
            traceback.print_exc()
            print(f"BROKEN on {name} with seed {seed}", file=sys.stderr)
            return 1
        _say(f"{name}: {lives} lives in {time.monotonic() - started:.0f} s, every promise kept")
    return 0


def _on_aws(folder: Path, seed: int, minutes: float, names: Sequence[str]) -> Soaked:
    return soak_cloud(folder, seed, 60.0 * minutes, names, _say)


def _on_one(folder: Path, seed: int, minutes: float, names: Sequence[str]) -> Soaked:
    return asyncio.run(soak(folder, seed, 60.0 * minutes, names, _say))


def _soak(seed: int, soaking: Callable[[Path], Soaked]) -> int:
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as folder:
        try:
            soaked = soaking(Path(folder))
        except (Violation, ExceptionGroup) as broken:
            for error in _violations(broken):
                print(f"BROKEN with seed {seed}: {error}", file=sys.stderr)
            for log in sorted(Path(folder).rglob("*.log")):
                text = log.read_text("utf-8", errors="replace")
                print(f"{log.name} ends:\n{text[-20_000:]}", file=sys.stderr)
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
