"""Which texts go through a model together."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

RUN_COST_TOKENS = 20
"""What a run costs beside its tokens, measured in tokens: more padding than that is not worth
the run that it saves."""


def runs(lengths: NDArray[np.int32], run_tokens: int) -> Iterator[NDArray[np.intp]]:
    """The rows in runs of like length, shortest first, so that little is padded.

    A run ends where its padding would cost more than another run, or where its tokens would be
    more than `run_tokens`.
    """
    order = np.argsort(lengths, kind="stable")
    start = tokens = 0
    for at, row in enumerate(order):
        length = int(lengths[row])
        padded = length * (at + 1 - start)
        tokens += length
        if at > start and (padded > run_tokens or padded - tokens > RUN_COST_TOKENS):
            yield order[start:at]
            start, tokens = at, length
    if len(order):
        yield order[start:]
