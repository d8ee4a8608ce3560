"""What is known of AWS: published latencies and prices, each with its source.

Latencies are lognormal through the published median and 99th percentile; rows marked E are
estimates of ours that no publication was found for, as docs/simulation.md says too. Prices and the
speeds of models are in `synapse.domain.price_list` and `synapse.domain.reference`.
"""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Protocol

from synapse.domain import reference
from synapse.domain.reference import Published

Z99 = 2.3263478740408408
"""The 99th percentile of the standard normal distribution."""


class Draws(Protocol):
    """A time that is not always the same."""

    def draw(self, chance: random.Random) -> float:
        """One such time, in seconds."""
        ...


class Timed(Draws, Protocol):
    """The same with its median and 99th percentile, and what it is for a given luck."""

    @property
    def p50_s(self) -> float:
        """The median, in seconds."""
        ...

    @property
    def p99_s(self) -> float:
        """The 99th percentile, in seconds."""
        ...

    def at(self, score: float) -> float:
        """That of a standard normal score: 0 is the median, `Z99` the 99th percentile."""
        ...


@dataclass(frozen=True, slots=True)
class Delay:
    """A lognormal time: its median and 99th percentile in seconds, and where they come from."""

    p50_s: float
    p99_s: float
    source: str

    @staticmethod
    def of(published: Published) -> Delay:
        """Through these figures."""
        return Delay(published.p50_s, published.p99_s, published.source)

    def draw(self, chance: random.Random) -> float:
        """One such time, in seconds."""
        return self.at(chance.gauss(0.0, 1.0))

    def at(self, score: float) -> float:
        """That of a standard normal score: 0 is the median, `Z99` the 99th percentile."""
        return self.p50_s * math.exp(score * math.log(self.p99_s / self.p50_s) / Z99)


class ByScore(ABC):
    """See `Timed`: all that follows from what a time is for a given luck."""

    @property
    def p50_s(self) -> float:
        """The median, in seconds."""
        return self.at(0.0)

    @property
    def p99_s(self) -> float:
        """The 99th percentile, in seconds."""
        return self.at(Z99)

    def draw(self, chance: random.Random) -> float:
        """One such time, in seconds."""
        return self.at(chance.gauss(0.0, 1.0))

    @abstractmethod
    def at(self, score: float) -> float:
        """See `Timed`."""


@dataclass(frozen=True, slots=True)
class Sampled(ByScore):
    """A time as it was measured: its values in their order, in seconds; between them a line."""

    ordered: tuple[float, ...]

    @staticmethod
    def of(values: Sequence[float]) -> Sampled:
        """These."""
        return Sampled(tuple(sorted(values)))

    def at(self, score: float) -> float:
        """See `Timed`."""
        place = NormalDist().cdf(score) * (len(self.ordered) - 1)
        below = int(place)
        above = min(below + 1, len(self.ordered) - 1)
        part = place - below
        return self.ordered[below] * (1 - part) + self.ordered[above] * part


SQS_TO_LAMBDA = Delay(0.0162, 0.105, "bitesizedserverless.com, eu-west-1, 2022: 1,024 runs, warm")
EXPRESS_TO_TASK = Delay(0.077, 0.241, "bitesizedserverless.com, 2022: sync start to its task")
API_GATEWAY = Delay(0.015, 0.060, "smplogs.com: REST 10 to 30 ms; p99 E")
LAMBDA_INVOKE = Delay(0.010, 0.045, "E: warm, synchronous, within the region")
S3 = Delay(
    0.100,
    0.200,
    "AWS, S3's user guide, optimizing performance: roughly 100 to 200 ms for small objects, read "
    "here as median and p99; a user's 60 KB put from a Lambda took 60 to 133 (kkc.github.io, 2020)",
)
DYNAMO_WRITE = Delay(0.007, 0.025, "E: from a Lambda; AWS says single-digit ms on its side")

LAMBDA_IMAGE_START = Delay.of(reference.LAMBDA_START)
START = {accelerator: Delay.of(start) for accelerator, start in reference.START.items()}
TIMES = {
    model: {accelerator: Delay.of(times) for accelerator, times in of_model.items()}
    for model, of_model in reference.TIMES.items()
}
"""Of an item, by model and accelerator."""

BURST_SHAPE = 0.5
"""Of the gamma distribution of gaps between requests. Source: BurstGPT-Perf, arXiv 2401.17644."""

PEAK_TO_VALLEY = 3.3
"""Of the rate over a day. E: about what is told of public chat services."""

ENGINE_HOP = Delay(0.002, 0.004, "E: from a function to an engine and back within the network")


@dataclass(frozen=True, slots=True)
class Around:
    """What lies between the API and the workers: delays, and how fresh what is known of workers is.

    `write` and `deliver` pass until a job's message is there, `batch` until a batch is at its
    runner, `bucket` to put a prompt that lies apart and again to get it, `wake` until the
    autoscaler looks because it was called. It looks each `round_s`, and each `settle_every_s` while
    work waits or workers start. Jobs that find no room wait in their order, and are looked at again
    when a slot is freed and each `look_again_s`; or each `goes_round`, and nobody tells it.
    """

    write: Delay
    deliver: Delay
    batch: Delay
    hop: Draws
    wake: Delay
    fresh_s: float
    round_s: float
    settle_every_s: float
    look_again_s: float
    bucket: Delay | None = None
    goes_round: bool = False


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
    bucket=S3,
    goes_round=True,
)
"""EventBridge calls the autoscaler once a minute; a message that found no room comes again."""

MEASURED = "E, within what docs/benchmarks.md has for a no-op job: p50 3.3 ms, p99 8 ms in all"
AROUND_CALL = Delay(0.0015, 0.004, MEASURED)
ONE_MACHINE = Around(
    Delay(0.0012, 0.004, MEASURED),
    Delay(0.0002, 0.001, MEASURED),
    Delay(0.0005, 0.002, MEASURED),
    AROUND_CALL,
    Delay(0.0010, 0.005, MEASURED),
    fresh_s=0.2,
    round_s=1.0,
    settle_every_s=math.inf,
    look_again_s=0.2,
)
"""`synapse serve`."""
