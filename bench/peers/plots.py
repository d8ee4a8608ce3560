"""The picture of the comparison: answers/s by clients, latency at equal load, processor time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from bench.peers.plan import Plan
from bench.peers.results import Measured, Point, Results
from bench.peers.verdicts import OURS

FILES = ("peers.svg", "peers.png")
TITLES = {"noop": "No-op", "embed": "MiniLM embeddings", "generate": "SmolLM2, 32 tokens"}
COLOURS = {
    "Synapse": "#0b3d91",
    "Synapse jobs": "#2f7de1",
    "FastAPI + Celery + Redis": "#3f8f4f",
    "Celery + Redis fsync always": "#8fbf6a",
    "LitServe": "#9c4fb0",
    "Ray Serve": "#c0392b",
    "BentoML": "#d98324",
    "Triton bare": "#6b6b6b",
    "llama.cpp server": "#2b2b2b",
}
SHORT = {
    "FastAPI + Celery + Redis": "Celery + Redis",
    "Celery + Redis fsync always": "Celery, always",
}
DISTURBED = "hollow dots and pale ranges: others took the processor in every round"
WIDTH, HEIGHT = 5.2, 11.0
NEAREST = 0.062
"""Between two labels at the lines' ends, as a share of the height of the axes."""

Peers = Mapping[str, Measured]


def draw(results: Results, folder: Path) -> None:
    """Write peers.svg and peers.png into the folder; there must be a figure (`has_figures`)."""
    shown = {
        workload: {name: one for name, one in peers.items() if one.rounds}
        for workload, peers in results.in_order().items()
        if any(one.rounds for one in peers.values())
    }
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "peers", "font.size": 9})
    size = (WIDTH * len(shown), HEIGHT)
    figure, rows = plt.subplots(3, len(shown), figsize=size, layout="constrained", squeeze=False)
    for column, (workload, peers) in enumerate(shown.items()):
        plan = results.plans[workload]
        _throughput(rows[0][column], plan, peers)
        rows[0][column].set_title(TITLES[workload], fontweight="bold")
        _latency(rows[1][column], plan, peers)
        _processor(rows[2][column], plan, peers)
    figure.supxlabel(DISTURBED, fontsize=8, color="#555555")
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / FILES[0], metadata={"Date": None})
    figure.savefig(folder / FILES[1], dpi=110)
    plt.close(figure)


def _throughput(axes: Axes, plan: Plan, peers: Peers) -> None:
    """Lines with their names at their ends; a hollow dot is a point that neighbours disturbed."""
    ends: dict[str, tuple[int, float]] = {}
    for name, one in peers.items():
        points = {count: one.closed(count) for count in plan.clients}
        told = {count: point for count, point in points.items() if point.per_s > 0}
        if not told:
            continue
        rates = [point.per_s for point in told.values()]
        ours, colour = name in OURS, COLOURS[name]
        axes.plot(list(told), rates, lw=2.2 if ours else 1.2, color=colour, zorder=3 if ours else 2)
        for count, point in told.items():
            face = "white" if point.is_disturbed else colour
            axes.plot(count, point.per_s, "o", ms=4, mec=colour, mfc=face, zorder=4)
        ends[name] = list(told)[-1], rates[-1]
    axes.set(xscale="log", yscale="log", xlabel="clients, each asking again when it is answered")
    axes.set_ylabel("answers/s")
    axes.set_xticks(plan.clients, [f"{count:,}" for count in plan.clients])
    axes.xaxis.set_minor_locator(NullLocator())
    low, high = axes.get_ylim()
    axes.set_ylim(low / 1.2, high * 1.2)
    _plain_numbers(axes.yaxis, *axes.get_ylim())
    axes.grid(which="major", color="#e6e6e6", lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    _name_ends(axes, ends)


def _plain_numbers(axis: Axis, low: float, high: float) -> None:
    """1, 2, 5, 10 … instead of powers of ten, which hide a factor of two."""
    steps = (1.0, 2.0, 5.0) if high / low < 300 else (1.0,)
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axis.set_minor_locator(NullLocator())


def _name_ends(axes: Axes, ends: Mapping[str, tuple[int, float]]) -> None:
    """The names to the right of the lines, moved apart where they would overlap."""
    if not ends:
        return
    names = sorted(ends, key=lambda name: ends[name][1])
    places = within(apart([_height(axes, ends[name][1]) for name in names]))
    arrow = {"arrowstyle": "-", "lw": 0.5, "relpos": (0.0, 0.5), "shrinkA": 1, "shrinkB": 3}
    for name, place in zip(names, places, strict=True):
        axes.annotate(
            SHORT.get(name, name),
            xy=ends[name],
            xycoords="data",
            xytext=(1.06, place),
            textcoords="axes fraction",
            va="center",
            color=COLOURS[name],
            fontweight="bold" if name in OURS else "normal",
            arrowprops=arrow | {"color": COLOURS[name]},
        )


def _height(axes: Axes, value: float) -> float:
    """Where a value is on the axes: 0 at the bottom, 1 at the top."""
    _, pixel = axes.transData.transform((1.0, value))
    return float(axes.transAxes.inverted().transform((0.0, pixel))[1])


def apart(heights: Sequence[float], nearest: float = NEAREST) -> list[float]:
    """Rising heights, moved so that no two are nearer than that."""
    places = list(heights)
    for _ in range(50):
        for low in range(len(places) - 1):
            lacking = nearest - (places[low + 1] - places[low])
            if lacking > 0:
                places[low] -= lacking / 2
                places[low + 1] += lacking / 2
    return places


def within(places: Sequence[float], top: float = 1.0) -> list[float]:
    """The same rising places, moved down as far as the highest is above the top."""
    fitted: list[float] = []
    for place in reversed(places):
        fitted.append(min(place, top if not fitted else fitted[-1] - NEAREST))
    return fitted[::-1]


def _latency(axes: Axes, plan: Plan, peers: Peers) -> None:
    """Bars from p50 to p99, and a tick for the p99 of each round."""
    for at, (name, one) in enumerate(peers.items()):
        point = one.equal()
        if point.p50_ms is None or point.p99_ms is None:
            continue
        length_ms = point.p99_ms - point.p50_ms
        strength, colour = _strength(point), COLOURS[name]
        axes.barh(at, length_ms, left=point.p50_ms, height=0.5, color=colour, alpha=strength)
        rounds = [each.equal.p99_ms for each in one.rounds.values() if each.equal.p99_ms]
        axes.plot(rounds, [at] * len(rounds), "|", color="black", ms=8, mew=0.9)
        label = f"  {_figure(point.p50_ms)} – {_figure(point.p99_ms)}"
        axes.text(max([point.p99_ms, *rounds]), at, label, va="center", fontsize=8)
    _bars(axes, peers, f"ms at {plan.rate_per_s:g}/s at random, from p50 to p99 (ticks: rounds)")
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(low / 1.3, high * (high / low) ** 0.3)
    _plain_numbers(axes.xaxis, *axes.get_xlim())
    axes.grid(axis="x", which="major", color="#e6e6e6", lw=0.6)
    axes.set_axisbelow(True)


def _processor(axes: Axes, plan: Plan, peers: Peers) -> None:
    """Processor time a request: at the equal load, and below it in the closed loop."""
    reference = plan.reference_clients
    loads: tuple[tuple[Callable[[Measured], Point], float, float], ...] = (
        (lambda one: one.equal(), -0.19, 1.0),
        (lambda one: one.closed(reference), 0.19, 0.45),
    )
    for at, (name, one) in enumerate(peers.items()):
        for point_of, shift, strength in loads:
            core_ms = point_of(one).core_ms
            if core_ms is not None:
                axes.barh(at + shift, core_ms, height=0.36, color=COLOURS[name], alpha=strength)
                text = f" {_figure(core_ms)}"
                axes.text(core_ms, at + shift, text, va="center", fontsize=7.5)
    _bars(axes, peers, f"processor ms a request: equal load (dark), {reference} clients (light)")
    axes.margins(x=0.14)


def _bars(axes: Axes, peers: Peers, label: str) -> None:
    axes.set_yticks(range(len(peers)), [SHORT.get(name, name) for name in peers])
    for tick, name in zip(axes.get_yticklabels(), peers, strict=True):
        tick.set_fontweight("bold" if name in OURS else "normal")
    axes.invert_yaxis()
    axes.set_xlabel(label, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _strength(point: Point) -> float:
    """How dark: pale where neighbours disturbed it."""
    return 0.35 if point.is_disturbed else 0.85
