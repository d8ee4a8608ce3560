"""LitServe: batches for embeddings, an async API over the continuous batching of the LLM engine."""

from __future__ import annotations

import sys
from typing import Any

import litserve
from engines import BATCH_WAIT_S, MAX_BATCH, load, load_one, processes, workload


class Batched(litserve.LitAPI):
    """LitServe joins what waits into one call of `predict`."""

    def setup(self, device: str) -> None:
        """Load the engine in the worker process."""
        self.run = load(processes())

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # it reads annotations
        """The text of a request."""
        return str(request["text"])

    def predict(self, texts: list[str]) -> list[Any]:
        """All of a batch."""
        return self.run(texts)

    def encode_response(self, output: Any) -> dict[str, Any]:
        """The answer to one request."""
        return {"output": output}


class Concurrent(litserve.LitAPI):
    """One request a call, many calls at once: the engine batches by itself."""

    def setup(self, device: str) -> None:
        """Load the engine in the worker process."""
        self.run = load_one()

    async def decode_request(self, request):  # type: ignore[no-untyped-def]  # it reads annotations
        """The text of a request."""
        return str(request["text"])

    async def predict(self, text: str) -> Any:
        """One request."""
        return await self.run(text)

    async def encode_response(self, output: Any) -> dict[str, Any]:
        """The answer to one request."""
        return {"output": output}


def main() -> None:
    """Serve on the port given."""
    if workload() == "embed":
        api: litserve.LitAPI = Batched(
            max_batch_size=MAX_BATCH, batch_timeout=BATCH_WAIT_S, api_path="/run"
        )
    else:
        api = Concurrent(enable_async=True, api_path="/run")
    # Between its processes ZeroMQ, which it has for high throughput, instead of a manager's queue.
    # It has as many HTTP servers as workers.
    server = litserve.LitServer(
        api, accelerator="cpu", workers_per_device=processes(), timeout=300, fast_queue=True
    )
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning"
    )


if __name__ == "__main__":
    main()
