"""The results as tables, to be read and to be pasted."""

from __future__ import annotations

from bench.simulator.report import Report, TierReport
from synapse.domain.job import SlaTier

PARTS = {
    "gateway": "API Gateway",
    "functions": "Lambda",
    "queues": "SQS",
    "tables": "DynamoDB",
    "batcher": "Step Functions",
    "bucket": "S3",
    "monitoring": "CloudWatch",
    "active": "machines at work",
    "starting": "starting",
    "idle": "idle",
}


def head(*names: str) -> None:
    """The first two lines of a table."""
    print(f"| {' | '.join(names)} |")
    print(f"|{' --- |' * len(names)}")


def row(*cells: str) -> None:
    """A line of it."""
    print(f"| {' | '.join(cells)} |", flush=True)


def day_head() -> None:
    """Of a table of designs through a day."""
    head(
        *("design", "machines, USD", "services, USD", "for 1,000 delivered, USD"),
        *("gold and silver kept", "gold p50, p99, ms", "silver p50, p99, ms", "bronze p99, s"),
        *("at work, of paid", "of up", "not delivered"),
    )


def day_row(report: Report) -> None:
    """A design's line in it."""
    gold, silver, bronze = (report.tiers.get(tier) for tier in SlaTier)
    lost = sum(tier.requests - tier.delivered for tier in report.tiers.values())
    row(
        report.name,
        f"{report.machines_usd:.2f}",
        f"{report.services.usd:.2f}" if report.services.usd else "not counted",
        f"{report.usd_per_1k:.4f}",
        f"{report.kept:.1%}",
        _times(gold),
        _times(silver),
        "" if bronze is None else f"{bronze.p99_ms / 1000:,.1f}",
        f"{report.use:.0%}",
        f"{report.hours.use:.0%}",
        str(lost),
    )


def _times(tier: TierReport | None) -> str:
    return "" if tier is None else f"{tier.p50_ms:,.0f}, {tier.p99_ms:,.0f}"


def parts_head() -> None:
    """Of a table of what a thousand requests cost, by service."""
    head("USD for 1,000 delivered", *PARTS.values(), "together")


def parts_row(report: Report) -> None:
    """A design's line in it."""
    delivered = sum(tier.delivered for tier in report.tiers.values())
    each = [report.usd[part] * 1000 / max(1, delivered) for part in PARTS]
    row(report.name, *(f"{usd:.4f}" if usd else "" for usd in each), f"{report.usd_per_1k:.4f}")


def rounds_head() -> None:
    """Of a table of how jobs went round until they had room."""
    head(
        *("jobs", "p50, p99, s", "within 300 s", "looks a job", "gathered", "gathered again"),
        *("messages a dispatch", "tries of a runner a job", "claimed in vain", "given back"),
    )


def rounds_row(report: Report) -> None:
    """A design's line in it."""
    bronze, done = report.tiers[SlaTier.BRONZE], report.done
    messages = done["looks"] + done["gathered"] + done["gathered again"]
    row(
        report.name,
        f"{bronze.p50_ms / 1000:.1f}, {bronze.p99_ms / 1000:.1f}",
        f"{bronze.kept:.2%}",
        f"{done['looks'] / bronze.requests:.2f}",
        f"{done['gathered'] / bronze.requests:.1%}",
        f"{done['gathered again'] / bronze.requests:.1%}",
        f"{messages / max(1, done['invocations']):.2f}",
        f"{done['tries'] / bronze.requests:.2f}",
        f"{done['claims in vain'] / bronze.requests:.1%}",
        f"{done['given back'] / bronze.requests:.1%}",
    )


def sweep_head() -> None:
    """Of a table of designs at a rate."""
    head(
        *("requests/s", "design", "for 1,000 delivered, USD", "gold and silver kept"),
        *("gold p99 at the caller, ms", "silver", "at work, of up", "not delivered"),
    )


def sweep_row(per_s: float, report: Report) -> None:
    """A line of it."""
    gold, silver = (report.tiers.get(tier) for tier in (SlaTier.GOLD, SlaTier.SILVER))
    lost = sum(tier.requests - tier.delivered for tier in report.tiers.values())
    row(
        f"{per_s:g}",
        report.name,
        f"{report.usd_per_1k:.4f}",
        f"{report.kept:.1%}",
        "" if gold is None else f"{gold.front_p99_ms:,.0f}",
        "" if silver is None else f"{silver.front_p99_ms:,.0f}",
        f"{report.hours.use:.0%}" if report.pools else "",
        str(lost),
    )


def tier_head() -> None:
    """Of a table of tiers."""
    head(
        *("requests", "number", "delivered", "refused", "p50, ms", "p99, ms"),
        *("caller's p50", "p99"),
    )


def tier_row(name: str, tier: TierReport) -> None:
    """A line of it."""
    row(
        name,
        f"{tier.requests:,}",
        f"{tier.delivered / max(1, tier.requests):.1%}",
        str(tier.refused),
        f"{tier.p50_ms:,.0f}",
        f"{tier.p99_ms:,.0f}",
        f"{tier.front_p50_ms:,.0f}",
        f"{tier.front_p99_ms:,.0f}",
    )


def bill(report: Report) -> None:
    """What a run cost, by pool and service."""
    services = report.services
    head("what it cost", "USD")
    for name, usage in report.pools.items():
        idle = 1 - usage.busy_s / usage.paid_s if usage.paid_s else 0.0
        row(f"{name}: at most {usage.most}, {idle:.0%} of it idle or starting", f"{usage.usd:.2f}")
    row("API Gateway", f"{services.gateway:.2f}")
    row("Lambda", f"{services.functions:.2f}")
    others = services.usd - services.gateway - services.functions
    row("DynamoDB, S3, SQS, Step Functions, CloudWatch", f"{others:.2f}")
    row("together", f"{report.machines_usd + services.usd:.2f}")
    print()
