"""Models whose speed on AWS's machines is published, for who has measured nothing yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from synapse.domain.cost import Payload
from synapse.domain.pool import Pool
from synapse.domain.price_list import ECS_FEE, USD_HOUR
from synapse.domain.profile import Profile

SLOTS = 8
"""How many items a worker takes at once; they share it, so that n take n times as long: E."""

INSTANCE = {"cpu": "c7g.xlarge", "gpu": "g6.xlarge", "neuron": "inf2.xlarge"}
"""By accelerator: the machine of the figures below."""

DEPLOYABLE = ("gpu", "neuron")
"""Machines for which template.yaml has a pool that takes every tier: `gpu-ecs` and `neuron`.

Its pools in Lambda, `cpu` and `gpu`, run jobs alone, and it has none of machines without
accelerator.
"""


@dataclass(frozen=True, slots=True)
class Published:
    """A time: its median and 99th percentile in seconds, and where they come from.

    What is marked E is an estimate of ours, for which no publication was found.
    """

    p50_s: float
    p99_s: float
    source: str


CPU_START = Published(40.0, 90.0, "blog.neilkuan.click, 2026-01: Managed Instances, first log")
GPU_START = Published(240.0, 360.0, "EKS lab 425 s, fourTheorem a few minutes; E: 2 to 6 min")
START: Mapping[str, Published] = {"cpu": CPU_START, "gpu": GPU_START, "neuron": GPU_START}

LAMBDA_START = Published(8.0, 20.0, "E: container of 3 GB, lazily loaded, and its model's load")

TRT = "TensorRT demo/BERT, NVIDIA L4, BERT-large, 128 tokens, FP16, batch of 16"
NEURON = "Neuron inf2 table 2024-09: bert-large-uncased, 128 tokens, batch of 4, 2 cores: 2 rounds"
FLOPS = "E: 77 GFLOP a passage at 0.45 TFLOP/s on 4 Graviton3 cores"
ONNX = "PCSchmidt/inference-optimization-study: MiniLM-L6, ONNX Runtime, int8, one text"

TIMES: Mapping[str, Mapping[str, Published]] = {
    "embed": {
        "gpu": Published(
            0.00100, 0.00101, "TensorRT demo/BERT, NVIDIA L4, BERT-base, FP16, one text"
        ),
        "neuron": Published(
            0.00295, 0.00311, "Neuron inf2 table 2024-09: bert-base-cased, batch of 4"
        ),
        "cpu": Published(0.0032, 0.0076, ONNX),
    },
    "rerank": {
        "gpu": Published(0.02510, 0.02519, TRT),
        "neuron": Published(0.01746, 0.01824, NEURON),
        "cpu": Published(2.74, 3.3, FLOPS),
    },
    "rerank-64": {
        "gpu": Published(0.10718, 0.10912, TRT.replace("16", "64")),
        "neuron": Published(0.06984, 0.07296, NEURON.replace("2 rounds", "8 rounds")),
        "cpu": Published(10.95, 13.2, FLOPS),
    },
}
"""Of one item by model and accelerator, on a machine of its own.

`embed` is one short text (the accelerators' figures are of BERT-base, which is larger: none was
published for MiniLM); `rerank` 16 and `rerank-64` 64 passages of 128 tokens through BERT-large.
"""

LAMBDA_GB: Mapping[str, float] = {"embed": 2.0, "rerank": 10.0, "rerank-64": 10.0}
"""Memory of a function that has the model in itself: E. On 10 GB it has 6 cores, about as above.

The speed is that of Graviton3, so the price is that of arm64.
"""


PAYLOADS: Mapping[str, Payload] = {
    "embed": Payload(0.2, 2.0),
    "rerank": Payload(9.0, 0.4),
    "rerank-64": Payload(36.0, 1.5),
}
"""E: 0.55 KiB a passage of 128 tokens, and a score for each; 384 numbers of an embedding."""


def pool(accelerator: str, *, most: int, idle_after_s: float = 300.0, fee: float = ECS_FEE) -> Pool:
    """A pool of such machines, from nothing to `most`, named for its accelerator.

    Its price is EC2's with the `fee` of who manages them.
    """
    return Pool(
        accelerator,
        accelerator,
        price_per_hour_usd=USD_HOUR[INSTANCE[accelerator]] * fee,
        min_workers=0,
        max_workers=most,
        idle_after_s=idle_after_s,
        startup_s=START[accelerator].p50_s,
    )


def profile(model: str, pool: Pool, item_s: float, spread: float) -> Profile:
    """What the profiler would have measured of items that share a worker."""
    return Profile(
        model,
        "1",
        pool.name,
        pool.accelerator,
        base_ms=item_s * 1000,
        company=1.0,
        spread=spread,
        items_per_s=1 / item_s,
        usd_per_1k_items=pool.price_per_hour_usd / 3600 * item_s * 1000,
        samples=100,
    )
