"""Tables of what was measured, as docs/benchmarks.md has them."""

from __future__ import annotations

from collections.abc import Sequence

from bench.peers.measure import Crash, Measured, Point

OURS = ("Synapse", "Synapse jobs")


def tables(workload: str, measured: Sequence[Measured], crashes: Sequence[Crash]) -> str:
    """All there is to say of one workload, in Markdown."""
    if not measured:
        return f"### {workload}\n\nnothing was measured\n"
    parts = [f"### {workload}", _throughput(measured), _others(measured)]
    if crashes:
        parts.append(_crash(crashes))
    return "\n\n".join(parts) + "\n"


def _throughput(measured: Sequence[Measured]) -> str:
    counts = list(measured[0].closed)
    head = [f"{count} clients" for count in counts]
    rows = [_row(["answers/s (p50 / p99 ms)", *head]), _row(["---"] * (1 + len(head)))]
    for one in measured:
        rows.append(_row([one.peer, *(_point(one.closed[count]) for count in counts)]))
    return "\n".join(rows)


def _others(measured: Sequence[Measured]) -> str:
    rate = measured[0].at_equal_load.get("rate_per_s", 0.0)
    head = ["", f"p50 / p99 ms at {rate:.1f}/s at random", "errors", "first answer", "memory"]
    rows = [_row(head), _row(["---"] * len(head))]
    for one in measured:
        point: Point | None = one.at_equal_load.get("point")
        errors = sum(sum(each.errors.values()) for each in one.closed.values())
        errors += sum(point.errors.values()) if point else 0
        rows.append(
            _row(
                [
                    one.peer,
                    _latencies(point) if point else "–",
                    f"{errors:,}",
                    f"{one.first_answer_s:.1f} s",
                    f"{one.memory_mib:.0f} MiB",
                ]
            )
        )
    return "\n".join(rows)


def _crash(crashes: Sequence[Crash]) -> str:
    head = ["kill -9 amid 200 requests", "accepted", "lost of those", "callers with an error"]
    rows = [_row([*head, "back after"]), _row(["---"] * 5)]
    for one in crashes:
        accepted = str(one.accepted) if one.accepted else "accepts none"
        lost = str(one.lost) if one.accepted else "–"
        rows.append(_row([one.peer, accepted, lost, str(one.broken), f"{one.back_s:.1f} s"]))
    return "\n".join(rows)


def _point(point: Point) -> str:
    failed = sum(point.errors.values())
    text = (
        f"{point.per_s:,.0f} ({_latencies(point)})"
        if point.per_s >= 10
        else (f"{point.per_s:.2f} ({_latencies(point)})")
    )
    return f"{text}, {failed} errors" if failed else text


def _latencies(point: Point) -> str:
    if point.p50_ms is None or point.p99_ms is None:
        return "–"
    return f"{_ms(point.p50_ms)} / {_ms(point.p99_ms)}"


def _ms(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
