"""Tables of what was measured, as docs/peers.md has them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

from bench.peers.plan import Plan
from bench.peers.results import (
    OTHERS_AT_MOST_CORES,
    STOLEN_AT_MOST,
    Crash,
    Measured,
    Point,
    Results,
)
from bench.peers.verdicts import OURS, Verdict, verdicts

BARE = ("llama.cpp server", "Triton bare")
ENGINE_BOUND = "generate"
GOAL = 0.95
MARK = "†"

Peers = Mapping[str, Measured]


def page(results: Results) -> str:
    """The tables as a page of the docs, with the picture."""
    return f"""# Beside peers: all figures

Written by `make bench-peers ARGS="--publish"`; how it is measured and how each system is set up
is told in [Benchmarks](benchmarks.md#beside-what-one-would-take-instead).

![Throughput, latency at the same load, and processor time of each system](images/peers.svg)

{tables(results)}"""


def tables(results: Results) -> str:
    """All there is to say, in Markdown."""
    rounds = max(
        (len(one.rounds) for peers in results.measured.values() for one in peers.values()),
        default=0,
    )
    machine = ", ".join(f"{name} {value}" for name, value in results.machine.items())
    note = (
        f"{machine}. Medians of {rounds} rounds, without those in which neighbours had more than "
        f"{STOLEN_AT_MOST:.0%} of the processor or others on this machine more than "
        f"{OTHERS_AT_MOST_CORES:g} cores; {MARK}: it was so in all of them."
    )
    each = [
        workload_tables(workload, results.plans[workload], peers)
        for workload, peers in results.in_order().items()
    ]
    return "\n\n".join([note, *each]) + "\n"


def workload_tables(workload: str, plan: Plan, peers: Peers) -> str:
    """All there is to say of one workload."""
    measured = {name: one for name, one in peers.items() if one.rounds}
    parts = [f"### {workload}"]
    if measured:
        parts += [_throughput(plan, measured), _equal(plan, measured), _machine(plan, measured)]
        parts += [_verdicts(told)] if (told := verdicts(plan, measured)) else []
    if workload == ENGINE_BOUND and any(name in measured for name in BARE):
        parts.append(_ratios(plan, measured))
    crashes = {name: one.crashes for name, one in peers.items() if one.crashes}
    if crashes:
        parts.append(_crashes(crashes))
    for name, one in peers.items():
        parts += [f"{name} failed: {failure.splitlines()[0]}" for failure in one.failures]
    return "\n\n".join(parts)


def _clients(count: int) -> str:
    return "1 client" if count == 1 else f"{count:,} clients"


def _throughput(plan: Plan, peers: Peers) -> str:
    head = ["answers/s (p50 / p99 ms)", *(_clients(count) for count in plan.clients)]
    rows = [
        [name, *(_point(one.closed(count)) for count in plan.clients)]
        for name, one in peers.items()
    ]
    return _table(head, rows)


def _equal(plan: Plan, peers: Peers) -> str:
    reference = plan.reference_clients
    head = [
        f"at {plan.rate_per_s:g}/s at random",
        "p50 / p99 ms",
        "p99 of the rounds",
        "processor ms a request",
        f"the same at {reference} clients",
        "errors in all",
        "first answer",
        "memory",
    ]
    with_rest = plan.rest_s > 0
    if with_rest:
        head.append("of a core at rest")
    rows = []
    for name, one in peers.items():
        point = one.equal()
        errors = sum(point.errors.values())
        errors += sum(sum(one.closed(count).errors.values()) for count in plan.clients)
        rows.append(
            [
                name,
                _marked(_latencies(point), point),
                ", ".join(_ms(each.equal.p99_ms) for each in one.rounds.values()),
                _marked(_core(point), point),
                _marked(_core(one.closed(reference)), one.closed(reference)),
                f"{errors:,}",
                f"{one.first_answer_s():.1f} s",
                f"{one.memory_mib():.0f} MiB",
                *([_share(one.rest_cores())] if with_rest else []),
            ]
        )
    return _table(head, rows)


def _machine(plan: Plan, peers: Peers) -> str:
    """The controls: what the machine did meanwhile, at the equal load and in all closed loops."""
    head = [
        "the machine meanwhile, by round",
        "stolen, equal load",
        "stolen at most, closed loops",
        "a 5 ms timer late, p99, equal load",
        "others' cores, equal load",
    ]
    rows = []
    for name, one in peers.items():
        rounds = list(one.rounds.values())
        most = [max(point.stolen for point in each.closed.values()) for each in rounds]
        rows.append(
            [
                name,
                ", ".join(f"{each.equal.stolen:.0%}" for each in rounds),
                ", ".join(f"{stolen:.0%}" for stolen in most),
                ", ".join(f"{each.equal.late_ms:.1f}" for each in rounds) + " ms",
                ", ".join(f"{each.equal.others_cores:.2f}" for each in rounds),
            ]
        )
    return _table(head, rows)


def _verdicts(told: Sequence[Verdict]) -> str:
    """Ahead or behind is told where every round of the one beats every round of the other."""
    head = ["every round beats every round", "", "ahead of", "on a par with", "behind"]
    rows = []
    for one in told:
        who = (", ".join(names) or "–" for names in (one.ahead, one.par, one.behind))
        rows.append([one.system, one.figure, *who])
    return _table(head, rows)


def _ratios(plan: Plan, peers: Peers) -> str:
    """What each system leaves of the bare engine, in the same round."""
    rows = []
    for bare in (name for name in BARE if name in peers):
        for name in (name for name in (*OURS, *BARE[1:]) if name in peers and name != bare):
            for count in plan.clients:
                pairs = _pairs(peers[name], peers[bare], count)
                rates = _spread(pairs, lambda system, engine: _ratio(system.per_s, engine.per_s))
                cores = _spread(
                    pairs, lambda system, engine: _ratio(engine.core_ms, system.core_ms)
                )
                rows.append([f"{name} ÷ {bare}", str(count), rates, cores, f"≥ {GOAL}"])
    head = [
        "engine-bound",
        "clients",
        "answers/s, ratio: median (rounds)",
        "processor a request, bare ÷ system",
        "goal",
    ]
    return _table(head, rows)


def _pairs(system: Measured, engine: Measured, clients: int) -> list[tuple[Point, Point]]:
    """The closed loop of both in the rounds that both have."""
    return [
        (system.rounds[number].closed[clients], engine.rounds[number].closed[clients])
        for number in sorted(system.rounds.keys() & engine.rounds.keys())
    ]


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None


def _spread(
    pairs: Sequence[tuple[Point, Point]], ratio_of: Callable[[Point, Point], float | None]
) -> str:
    """The median of the undisturbed pairs, or of all, and the ratio of each."""
    told = [
        (ratio, system.is_disturbed or engine.is_disturbed)
        for system, engine in pairs
        if (ratio := ratio_of(system, engine)) is not None
    ]
    if not told:
        return "–"
    calm = [ratio for ratio, is_disturbed in told if not is_disturbed]
    middle = statistics.median(calm or [ratio for ratio, _ in told])
    each = ", ".join(f"{ratio:.2f}{MARK if is_disturbed else ''}" for ratio, is_disturbed in told)
    return f"{middle:.3f} ({each})"


def _crashes(crashes: Mapping[str, Sequence[Crash]]) -> str:
    requests = max(one.requests for each in crashes.values() for one in each)
    head = [f"kill -9 amid {requests} requests", "accepted", "lost of those", "late (the last)"]
    head += ["callers with an error", "back after"]
    rows = []
    for name, each in crashes.items():
        told = ["accepts none", "–", "–"]
        if any(one.accepted for one in each):
            late = (f"{one.late} ({one.slowest_s:.0f} s)" if one.late else "0" for one in each)
            accepted = ", ".join(str(one.accepted) for one in each)
            told = [accepted, ", ".join(str(one.lost) for one in each), ", ".join(late)]
        broken = ", ".join(str(one.broken) for one in each)
        back = ", ".join(f"{one.back_s:.1f}" for one in each)
        rows.append([name, *told, broken, f"{back} s"])
    return _table(head, rows)


def _point(point: Point) -> str:
    failed = sum(point.errors.values())
    rate = f"{point.per_s:,.0f}" if point.per_s >= 10 else f"{point.per_s:.2f}"
    text = _marked(f"{rate} ({_latencies(point)})", point)
    return f"{text}, {failed} errors" if failed else text


def _marked(text: str, point: Point) -> str:
    return f"{text} {MARK}" if point.is_disturbed else text


def _core(point: Point) -> str:
    return "–" if point.core_ms is None else f"{point.core_ms:.2f}"


def _latencies(point: Point) -> str:
    return "–" if point.p50_ms is None else f"{_ms(point.p50_ms)} / {_ms(point.p99_ms)}"


def _share(cores: float | None) -> str:
    return "–" if cores is None else f"{cores:.1%}"


def _ms(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
