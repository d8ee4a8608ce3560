"""llama.cpp's own HTTP server, with the engine settings that the worker uses."""

from __future__ import annotations

import os
import signal
import sys

os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import xllamacpp
from engines import SLOTS

CONTEXT_PER_SLOT = 2048
BATCH_TOKENS = 512


def main() -> None:
    """Serve on the port given until a signal."""
    params = xllamacpp.CommonParams()
    params.model.path = os.environ["BENCH_GGUF"]
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * CONTEXT_PER_SLOT
    params.n_batch = BATCH_TOKENS
    params.n_ubatch = BATCH_TOKENS
    cores = len(os.sched_getaffinity(0))
    params.cpuparams.n_threads = cores
    params.cpuparams_batch.n_threads = cores
    params.verbosity = 1
    params.port = int(sys.argv[1])
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    main()
