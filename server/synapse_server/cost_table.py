"""The answer of `synapse cost`: what a month of traffic would cost, by design and service."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace

from synapse.domain import reference
from synapse.domain.day import Traffic
from synapse.domain.job import SlaTier
from synapse.domain.monthly import HOURS, Month, months
from synapse.domain.pool import Pool
from synapse.domain.price_list import ECS_FEE
from synapse.domain.priced_model import MOST_LAMBDA_GB, Model, published, timed
from synapse.domain.routing import TIER_P99_MS
from synapse_server.config import StartError

LABELS = {
    "gateway": "API Gateway",
    "functions": "Lambda",
    "queues": "SQS",
    "tables": "DynamoDB",
    "batcher": "Step Functions",
    "bucket": "S3",
    "monitoring": "CloudWatch",
}
MACHINES = {
    "active": "machines, at work",
    "starting": "machines, starting",
    "idle": "machines, idle",
}


def cost_table(arguments: argparse.Namespace) -> str:
    """The answer of the command.

    Raises:
        StartError: the arguments make no sense.
    """
    try:
        traffic = Traffic(
            arguments.requests_per_day,
            SlaTier(arguments.tier),
            arguments.peak,
            arguments.busy_hours,
        )
        model = _model(arguments)
        found = months(model, traffic)
    except ValueError as error:
        raise StartError(str(error)) from error
    head, rows = _head(arguments.model, traffic), _rows(found, traffic)
    best = _cheapest(found, traffic.tier)
    return "\n".join([*head, "", *rows, "", best, "", *_foot(model, traffic)])


def _model(arguments: argparse.Namespace) -> Model:
    if not 0 <= arguments.idle_s < math.inf or arguments.max_workers < 1:
        raise ValueError("--idle-s must be at least 0, and --max-workers at least 1")
    most, idle_s = arguments.max_workers, arguments.idle_s
    if arguments.item_ms:
        item_s = dict(_item_s(text) for text in arguments.item_ms)
        model = timed(arguments.model, item_s, {}, most=most, idle_after_s=idle_s)
    else:
        model = published(arguments.model, most, idle_s)
    given = vars(arguments)
    gb = given.get("lambda_gb", model.lambda_gb)
    if not 0.125 <= gb <= MOST_LAMBDA_GB:
        raise ValueError(f"--lambda-gb must be 0.125 to {MOST_LAMBDA_GB:g}, not {gb:g}")
    payload = replace(
        model.payload,
        **{what: given[what] for what in ("prompt_kib", "result_kib") if what in given},
    )
    if not (0 <= payload.prompt_kib < math.inf and 0 <= payload.result_kib < math.inf):
        raise ValueError("--prompt-kib and --result-kib must be at least 0")
    return replace(model, lambda_gb=gb, payload=payload, waits=arguments.results == "wait")


def _item_s(text: str) -> tuple[str, float]:
    kind, _, ms = text.partition("=")
    try:
        return kind.strip(), float(ms) / 1000
    except ValueError as error:
        raise ValueError(f"--item-ms: give KIND=MS, as gpu=40, not {text!r}") from error


def _head(model: str, traffic: Traffic) -> list[str]:
    busy = "" if traffic.busy_hours == 24 else f" within {traffic.busy_hours:g} hours"
    return [
        f"{_number(traffic.per_day)} requests a day{busy} of {model}, {traffic.tier}, at most "
        f"{traffic.peak:g} times the mean:",
        f"US dollars in a month of {HOURS:g} hours (us-east-1, on demand, without free tiers).",
    ]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _rows(found: Sequence[Month], traffic: Traffic) -> list[str]:
    per_month = traffic.per_day * HOURS / 24
    rows: list[tuple[str, ...]] = [("", *(month.design for month in found))]
    for service, label in LABELS.items():
        rows.append((label, *(_usd(getattr(month.services, service)) for month in found)))
    for what, label in MACHINES.items():
        rows.append((label, *(_usd(month.machines.get(what, 0.0)) for month in found)))
    rows.append(("together", *(f"{month.usd:,.2f}" for month in found)))
    rows.append(("for 1,000 requests", *(f"{month.usd / per_month * 1000:.4f}" for month in found)))
    rows.append(("wait for a start", *(f"{month.cold:.1%}" for month in found)))
    rows.append(("machines at work, of up", *(_share(month) for month in found)))
    rows.append((_promise(traffic.tier), *(_kept(month, traffic.tier) for month in found)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(_cells(row, widths)) for row in rows]


def _cells(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [row[0].ljust(widths[0])] + [
        cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)
    ]


def _usd(usd: float) -> str:
    return f"{usd:,.2f}" if usd else "-"


def _share(month: Month) -> str:
    return f"{month.hours.use:.0%}" if month.hours.paid else "-"


def _promise(tier: SlaTier) -> str:
    promise_ms = TIER_P99_MS[tier]
    return "one item, alone" if tier is SlaTier.BRONZE else f"one item within {promise_ms:g} ms"


def _kept(month: Month, tier: SlaTier) -> str:
    kept = "" if tier is SlaTier.BRONZE else "yes, " if month.keeps(tier) else "no, "
    return f"{kept}{month.item_ms:,.0f} ms"


def _cheapest(found: Sequence[Month], tier: SlaTier) -> str:
    able = [month for month in found if month.keeps(tier)]
    if not able:
        return f"None of them keeps the promise of {tier}."
    best = min(able, key=lambda month: month.usd)
    promise = "" if tier is SlaTier.BRONZE else f" of those that keep {TIER_P99_MS[tier]:g} ms"
    waits = f", but {best.cold:.1%} of the requests wait for a start" if best.cold >= 0.001 else ""
    return f"The cheapest{promise}: {best.design}, {best.usd:,.2f}{waits}."


def _foot(model: Model, traffic: Traffic) -> list[str]:
    """What the figures rest on, as far as it depends on what was asked."""
    lines = []
    if model.sites:
        ours = ", ".join(f"{pool.accelerator} {_machine(pool)}" for pool, _ in model.sites)
        lines.append(f"Ours: {ours} with ECS's fee of {ECS_FEE - 1:.0%}, from nothing and back.")
    else:
        lines.append("No pool of instances here: template.yaml has them of gpu and neuron alone.")
    if model.elsewhere:
        others = ", ".join(_machine(pool) for pool, _ in model.elsewhere)
        lines.append(f"Always on may be {others} too, of which template.yaml has no pool.")
    if model.lambda_s is not None:
        lines.append(f"A function with the model in itself has {model.lambda_gb:g} GB (arm64).")
        if traffic.tier is not SlaTier.BRONZE:
            lines.append(
                "Our own pool of such functions is not shown: it runs jobs (bronze) alone."
            )
    if traffic.tier is SlaTier.BRONZE:
        waits = "waited for in a function" if model.waits else "fetched once after the end"
        lines.append(
            f"Of a job {model.payload.prompt_kib:g} KiB come and {model.payload.result_kib:g} KiB "
            f"go; the result is {waits}."
        )
    return [
        *lines,
        "Of the others nothing is counted around their functions and machines. An estimate:",
        "docs/simulation.md says what it rests on, what is left out, and how well it agrees.",
    ]


def _machine(pool: Pool) -> str:
    return reference.INSTANCE[pool.accelerator]
