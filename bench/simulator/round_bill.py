"""What jobs that go round bill on AWS, besides what `domain.cost` counts of each.

That is: the dispatcher's looks, jobs that are gathered, a runner's tries that find no room, its
looks while it waits, claims in vain, jobs given back. A job's first message and look are in
`cost.job`, but for what a look reads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from synapse.domain import price_list as usd
from synapse.domain.cost import API_GB, BATCH_GB, INLINE_KIB, Bill, Payload

MESSAGES = 10
"""SQS hands an invocation of the dispatcher, and takes, at most so many at once."""

DISPATCH_S = 0.1
DISPATCH_GB = 0.5
"""E: how long an invocation of the dispatcher takes; its memory as in template.yaml."""

TRY_S = 0.05
TRY_READS = 2
"""E: how long a runner is busy that finds no room; what is in flight, and who is up. The latter is
kept for two seconds in each environment, but counted each time here."""

ENTRY_READS = 1
"""To tell whether items of bronze may enter: what is in flight says how large their window is."""

GIVE_BACK_S = 0.05
GIVE_BACK_GB = 0.5
"""E, for one job or ten; as in template.yaml."""

MOVED = 2
"""Writes in the index of open jobs when a job is due at another time: one goes, one comes."""


def invocation(messages: int, again: int, reads: int) -> Bill:
    """The dispatcher is called with so many messages, of which some come `again`.

    How long it takes is billed whoever comes, though `cost.job` has a share of it. Messages are
    received and deleted together, at most `MESSAGES` of them: those that come again have their part
    in these requests.
    """
    share, requests = again / messages, 2 * math.ceil(messages / MESSAGES)
    busy_usd = DISPATCH_S * DISPATCH_GB * usd.USD_LAMBDA_GB_S
    return Bill(
        functions=share * usd.USD_LAMBDA_REQUEST + busy_usd,
        tables=reads * usd.USD_DYNAMO_READ,
        queues=share * requests * usd.USD_SQS_REQUEST,
    )


def sent(messages: int) -> Bill:
    """So many messages are sent again, `MESSAGES` in each request."""
    return Bill(queues=math.ceil(messages / MESSAGES) * usd.USD_SQS_REQUEST)


def renewed(payload: Payload) -> Bill:
    """A job is read, and written down as sent anew."""
    writes = math.ceil(payload.item_kib) + MOVED
    reads = math.ceil(payload.item_kib / 4)
    return Bill(tables=writes * usd.USD_DYNAMO_WRITE + reads * usd.USD_DYNAMO_READ)


def tried_in_vain(seconds: float = TRY_S) -> Bill:
    """A runner was called, was there for so long, and has begun nothing."""
    busy_s = max(TRY_S, seconds)
    return Bill(
        functions=usd.USD_LAMBDA_REQUEST + busy_s * API_GB * usd.USD_LAMBDA_GB_S,
        tables=TRY_READS * usd.USD_DYNAMO_READ,
        batcher=busy_s * BATCH_GB * usd.USD_EXPRESS_GB_S,
    )


def counted_waiting() -> Bill:
    """A runner is counted among those that wait, and taken off again."""
    return Bill(tables=2 * usd.USD_DYNAMO_WRITE)


def asked(times: int) -> Bill:
    """It was asked so often more, or less, whether there is room than items entered.

    For each that did, it is in `cost.batch`.
    """
    return Bill(tables=times * ENTRY_READS * usd.USD_DYNAMO_READ)


def taken_over(items: int) -> Bill:
    """So many items of a batch had the slot of one before: they neither entered nor left."""
    spared = 2 * usd.USD_DYNAMO_WRITE + ENTRY_READS * usd.USD_DYNAMO_READ
    return Bill(tables=-items * spared)


def claimed_in_vain(payload: Payload) -> Bill:
    """A job was claimed and its prompt fetched, and then it was not let in.

    It waits again, and is claimed once more: it is written twice, due at another time each.
    """
    gets = payload.prompt_kib > INLINE_KIB
    writes = 2 * (math.ceil(payload.item_kib) + MOVED)
    return Bill(tables=writes * usd.USD_DYNAMO_WRITE, bucket=gets * usd.USD_S3_GET)


def paused(seconds: float) -> Bill:
    """An execution waits for its next try."""
    return Bill(batcher=seconds * BATCH_GB * usd.USD_EXPRESS_GB_S)


def executions(number: int) -> Bill:
    """So many more, or fewer, than batches that ran: each of these has one in `cost.batch`."""
    return Bill(batcher=number * usd.USD_EXPRESS_REQUEST)


def given_back(payloads: Iterable[Payload]) -> Bill:
    """Jobs of a batch are written down as sent anew, and sent."""
    busy_usd = GIVE_BACK_S * GIVE_BACK_GB * usd.USD_LAMBDA_GB_S
    function, jobs = Bill(functions=usd.USD_LAMBDA_REQUEST + busy_usd), list(payloads)
    return sum((renewed(each) for each in jobs), function + sent(len(jobs)))
