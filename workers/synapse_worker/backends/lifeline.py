"""Ends a backend process when Triton is gone.

The stub looks after its parent by itself, but only every few seconds and only while its own
threads cooperate; a killed Triton must not leave a process that holds a model in memory.
"""

import os
import threading
import time

CHECK_INTERVAL_S = 0.5


def die_with_parent() -> None:
    """Start a thread that ends this process once it has been orphaned, which it may be by now."""
    parent = int(os.environ.get("SYNAPSE_TRITON_PID") or os.getppid())
    threading.Thread(target=_watch, args=(parent,), name="lifeline", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(CHECK_INTERVAL_S)
    os._exit(1)
