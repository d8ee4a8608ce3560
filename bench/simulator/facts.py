"""What is known of AWS: published latencies and prices, each with its source.

Latencies are lognormal through the published median and 99th percentile; rows marked E are
estimates of ours that no publication was found for, as docs/simulation.md says too. Prices are of
us-east-1, on demand, in USD, looked up 2026-11.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

Z99 = 2.3263478740408408
"""The 99th percentile of the standard normal distribution."""


@dataclass(frozen=True, slots=True)
class Delay:
    """A lognormal time: its median and 99th percentile in seconds, and where they come from."""

    p50_s: float
    p99_s: float
    source: str

    def draw(self, chance: random.Random) -> float:
        """One such time, in seconds."""
        return self.at(chance.gauss(0.0, 1.0))

    def at(self, score: float) -> float:
        """That of a standard normal score: 0 is the median, `Z99` the 99th percentile."""
        return self.p50_s * math.exp(score * math.log(self.p99_s / self.p50_s) / Z99)


SQS_TO_LAMBDA = Delay(0.0162, 0.105, "bitesizedserverless.com, eu-west-1, 2022: 1,024 runs, warm")
EXPRESS_TO_TASK = Delay(0.077, 0.241, "bitesizedserverless.com, 2022: sync start to its task")
API_GATEWAY = Delay(0.015, 0.060, "smplogs.com: REST 10 to 30 ms; p99 E")
LAMBDA_INVOKE = Delay(0.010, 0.045, "E: warm, synchronous, within the region")
DYNAMO_WRITE = Delay(0.007, 0.025, "E: from a Lambda; AWS says single-digit ms on its side")

LAMBDA_IMAGE_START = Delay(8.0, 20.0, "E: container of 3 GB, lazily loaded, and its model's load")
GPU_LAMBDA_START = Delay(180.0, 600.0, "AWS docs: from zero several minutes; spread E")
ECS_CPU_START = Delay(40.0, 90.0, "blog.neilkuan.click, 2026-01: Managed Instances, first log")
ECS_GPU_START = Delay(240.0, 360.0, "EKS lab 425 s, fourTheorem a few minutes; E: 2 to 6 min")

USD_HOUR = {
    "c7g.xlarge": 0.145,
    "g4dn.xlarge": 0.526,
    "g6.xlarge": 0.8048,
    "g5.xlarge": 1.006,
    "inf2.xlarge": 0.7582,
}
"""Source: the AWS price list of 2026-07-20, as Karpenter publishes it."""

MANAGED_INSTANCE_FEE = 1.15
"""On the price of an instance under Lambda. Source: Lambda pricing, 2026-09."""

USD_LAMBDA_GB_S = 0.0000166667
USD_LAMBDA_REQUEST = 0.20e-6
USD_API_REQUEST = 3.50e-6
USD_SQS_REQUEST = 0.40e-6
USD_DYNAMO_WRITE = 0.625e-6
USD_DYNAMO_READ = 0.125e-6
USD_EXPRESS_REQUEST = 1.00e-6
USD_EXPRESS_GB_S = 0.0000166667
"""Sources: the pricing pages of Lambda, API Gateway, SQS, DynamoDB and Step Functions, 2026."""

RERANK_PASSAGES = 16
"""A request of the model `rerank`: so many passages of 128 tokens through BERT-large."""

TRT = "TensorRT demo/BERT, NVIDIA L4, BERT-large, 128 tokens, FP16, batch of 16"
NEURON = "Neuron inf2 table 2024-09: bert-large-uncased, 128 tokens, batch of 4, 2 cores: 2 rounds"
FLOPS = "E: 77 GFLOP a passage at 0.45 TFLOP/s on 4 Graviton3 cores"
RERANK = {
    "gpu": Delay(0.02510, 0.02519, TRT),
    "neuron": Delay(0.01746, 0.01824, NEURON),
    "cpu": Delay(2.74, 3.3, FLOPS),
}

RERANK_LONG = {
    "gpu": Delay(0.10718, 0.10912, TRT.replace("16", "64")),
    "neuron": Delay(0.06984, 0.07296, NEURON.replace("2 rounds", "8 rounds")),
    "cpu": Delay(10.95, 13.2, FLOPS),
}
"""A request of the model `rerank-64`: 64 passages."""

ONNX = "PCSchmidt/inference-optimization-study: MiniLM-L6, ONNX Runtime, int8, one text"
EMBED = {
    "gpu": Delay(0.00100, 0.00101, "TensorRT demo/BERT, NVIDIA L4, BERT-base, FP16, one text"),
    "neuron": Delay(0.00295, 0.00311, "Neuron inf2 table 2024-09: bert-base-cased, batch of 4"),
    "cpu": Delay(0.0032, 0.0076, ONNX),
}
"""A request of the model `embed`: one short text.

The accelerators' figures are of BERT-base, which is larger: none was published for MiniLM.
"""

BURST_SHAPE = 0.5
"""Of the gamma distribution of gaps between requests. Source: BurstGPT-Perf, arXiv 2401.17644."""

PEAK_TO_VALLEY = 3.3
"""Of the rate over a day. E: about what is told of public chat services."""

ENGINE_HOP = Delay(0.002, 0.004, "E: from a function to an engine and back within the network")


@dataclass(frozen=True, slots=True)
class Around:
    """What lies between the API and the workers: delays, and how fresh what is known of workers is.

    `write` and `deliver` pass until a job's message is there, `batch` until a batch is at its
    runner, `wake` until the autoscaler looks because it was called. It looks each `round_s`, and
    each `settle_every_s` while work waits or workers start.
    """

    write: Delay
    deliver: Delay
    batch: Delay
    hop: Delay
    wake: Delay
    fresh_s: float
    round_s: float
    settle_every_s: float
    look_again_s: float


AWS = Around(
    DYNAMO_WRITE,
    SQS_TO_LAMBDA,
    EXPRESS_TO_TASK,
    ENGINE_HOP,
    LAMBDA_INVOKE,
    fresh_s=2.0,
    round_s=60.0,
    settle_every_s=10.0,
    look_again_s=1.0,
)
"""EventBridge calls the autoscaler once a minute; a message that found no room comes again."""

MEASURED = "E, within what docs/benchmarks.md has for a no-op job: p50 3.3 ms, p99 8 ms in all"
ONE_MACHINE = Around(
    Delay(0.0012, 0.004, MEASURED),
    Delay(0.0002, 0.001, MEASURED),
    Delay(0.0005, 0.002, MEASURED),
    Delay(0.0015, 0.004, MEASURED),
    Delay(0.0010, 0.005, MEASURED),
    fresh_s=0.2,
    round_s=1.0,
    settle_every_s=math.inf,
    look_again_s=0.2,
)
"""`synapse serve`."""
