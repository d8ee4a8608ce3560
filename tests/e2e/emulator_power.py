"""Cuts MiniStack's power and keeps what AWS keeps; run by MiniStack's own Python.

MiniStack writes its state down when it is stopped, never when it is killed. So at SIGUSR1 it forks:
the copy, in which no other thread runs any more, is its memory at one moment between two requests,
and writes that down, while the original is killed with all the functions that it runs. Tables,
buckets, queues with what is in flight, and all that was deployed come back at the next start on the
same folder. Running functions, executions and requests do not, nor what streams have not delivered.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from ministack import app  # type: ignore[import-not-found]
from ministack.core import persistence  # type: ignore[import-not-found]

SAVED_FILE = "TEST_SAVED_FILE"
"""Names a file that is made once everything is written."""

SAVING_TIMEOUT_S = 60


def install() -> None:
    """Cut the power at SIGUSR1: in the loop's own time, so that no request is half done."""
    if persistence.PERSIST_STATE:
        signal.signal(signal.SIGUSR1, lambda *_: app._MAIN_LOOP.call_soon_threadsafe(_cut))


def _cut() -> None:
    copy = os.fork()
    if copy == 0:
        _save()
    os.setpgid(copy, copy)  # so that it is not killed with the others
    os.killpg(0, signal.SIGKILL)


def _save() -> None:
    """In the copy: write the state down, and end."""
    try:
        signal.alarm(SAVING_TIMEOUT_S)
        os.closerange(3, 65_536)  # with them the port, for the next start
        persistence.save_all(app._build_persistence_save_dict())
        Path(os.environ[SAVED_FILE]).touch()
    finally:
        os._exit(0)
