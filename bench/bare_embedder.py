"""The embedding model alone, in the worker's environment: no Triton, no Synapse, the same session.

Reads a line of JSON `{"batches": [[text, …], …]}` on standard input, embeds batch after batch and
answers with `{"seconds": s}`; ends with its input.
"""

from __future__ import annotations

import json
import sys
import time

from synapse_worker.embedder import Embedder, EmbedderSettings


def main(model_package: str) -> None:
    embedder = Embedder(EmbedderSettings.from_parameters({"model_package": model_package}))
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        batches = json.loads(line)["batches"]
        started = time.perf_counter()
        for batch in batches:
            embedder.embed(embedder.read_texts(batch))
        print(json.dumps({"seconds": time.perf_counter() - started}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
