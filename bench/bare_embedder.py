"""The embedding model alone, in the worker's environment: no Triton, no Synapse, the same session.

Reads a line of JSON `{"requests": [[text, …], …], "callers": n}` on standard input and answers
with `{"seconds": s}` once all requests are; ends with its input. Each caller is a thread that asks
again as soon as it is answered; what waits when the session is free is embedded together, up to
what Triton would put into one batch, by as many sessions as Triton has instances.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from synapse_worker.cores import cores_each
from synapse_worker.embedder import Embedder, EmbedderSettings

MAX_BATCH = 32
INSTANCES = 2


class Batcher:
    """Threads, one a session, that take whatever waits."""

    def __init__(self, embedders: Sequence[Embedder]) -> None:
        self._waiting: deque[tuple[list[str], Future[Any]]] = deque()
        self._some = threading.Semaphore(0)
        self._taking = threading.Lock()
        for embedder in embedders:
            threading.Thread(target=self._run, args=[embedder], daemon=True).start()

    def embed(self, texts: list[str]) -> None:
        """Return once the texts are embedded."""
        answer: Future[Any] = Future()
        self._waiting.append((texts, answer))
        self._some.release()
        answer.result()

    def _take(self) -> list[tuple[list[str], Future[Any]]]:
        with self._taking:
            self._some.acquire()
            batch = [self._waiting.popleft()]
            size = len(batch[0][0])
            while self._waiting and size + len(self._waiting[0][0]) <= MAX_BATCH:
                self._some.acquire()
                batch.append(self._waiting.popleft())
                size += len(batch[-1][0])
            return batch

    def _run(self, embedder: Embedder) -> None:
        while True:
            batch = self._take()
            rows = embedder.read_texts([text for texts, _ in batch for text in texts])
            vectors = embedder.embed(rows)
            for _, answer in batch:
                answer.set_result(vectors)


def main(model_package: str) -> None:
    settings = EmbedderSettings.from_parameters({"model_package": model_package})
    batcher = Batcher([Embedder(settings, cores_each(INSTANCES)) for _ in range(INSTANCES)])
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        with ThreadPoolExecutor(order["callers"]) as callers:
            started = time.perf_counter()
            for _ in callers.map(batcher.embed, order["requests"]):
                pass
            print(json.dumps({"seconds": time.perf_counter() - started}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
