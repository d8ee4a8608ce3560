"""Pictures of the results, as SVG and PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot
from matplotlib.figure import Figure

from bench.simulator.from_zero import BUSY_S, FromZero
from bench.simulator.report import Report, quantile
from bench.simulator.requests import Request
from synapse.domain.job import SlaTier

COLOURS = {SlaTier.GOLD: "#b8860b", SlaTier.SILVER: "#708090", SlaTier.BRONZE: "#8b4513"}
STEP_S = 20.0

# The same text in, the same file out.
matplotlib.rcParams["svg.hashsalt"] = "synapse"


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write a figure twice."""
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    figure.savefig(folder / f"{name}.png", dpi=110)
    pyplot.close(figure)


def from_zero(found: FromZero, folder: Path) -> None:
    """Machines and the times of answers over the episode."""
    figure, (above, below) = pyplot.subplots(2, 1, figsize=(9, 6), sharex=True)
    [(name, sizes)] = found.sizes.items()
    times = [0.0, *(at for at, _ in sizes), found.zero_at + 120]
    above.step(times, [0, *(n for _, n in sizes), sizes[-1][1]], where="post", color="#336699")
    above.set_ylabel(f"{name} machines paid for")
    above.axvspan(0, BUSY_S, color="#eeeeee", zorder=0, label="1,000 callers")
    above.legend(loc="upper right")
    for tier, colour in COLOURS.items():
        points = _medians([r for r in found.requests if r.tier is tier])
        below.plot(
            [at for at, _, _ in points], [p50 for _, p50, _ in points], color=colour, label=tier
        )
        below.fill_between(
            [at for at, _, _ in points],
            [p50 for _, p50, _ in points],
            [p99 for _, _, p99 in points],
            color=colour,
            alpha=0.25,
            linewidth=0,
        )
    below.set_yscale("log")
    below.set_ylabel("answered after, s (p50 to p99)")
    below.set_xlabel("arrival, s since the first")
    below.grid(visible=True, which="major", color="#dddddd")
    below.legend(loc="upper right")
    figure.suptitle("From nothing to 1,000 callers and back, with published start-up times")
    figure.tight_layout()
    save(figure, folder, "simulation-from-zero")


def mixed_day(reports: Mapping[str, Sequence[Report]], folder: Path) -> None:
    """What each design cost, and how many promises it kept, at each load."""
    figure, panels = pyplot.subplots(2, 2, figsize=(11, 8))
    for panel, (load, found) in zip(panels.flat, reports.items(), strict=False):
        for number, report in enumerate(found):
            is_ours = report.services.usd > 0
            panel.scatter(
                report.machines_usd,
                report.kept * 100,
                color="#336699" if is_ours else "#cc7722",
                marker="o" if is_ours else "s",
            )
            panel.annotate(
                str(number + 1),
                (report.machines_usd, report.kept * 100),
                textcoords="offset points",
                xytext=(5, 3),
                fontsize=8,
            )
        panel.set_title(load)
        panel.set_xscale("log")
        panel.set_xlabel("machines, USD a day (of two hours)")
        panel.set_ylabel("gold and silver kept, %")
        panel.grid(visible=True, which="both", color="#e5e5e5")
    names = [report.name for report in next(iter(reports.values()))]
    legend = "   ".join(f"{number + 1} {name}" for number, name in enumerate(names))
    figure.text(0.02, 0.01, legend, fontsize=8, wrap=True)
    figure.suptitle("A mixed day on each design: left is cheaper, up is better")
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    save(figure, folder, "simulation-mixed-day")


def _medians(requests: Sequence[Request]) -> list[tuple[float, float, float]]:
    """Of the requests of each while: when, the median, and the 99th percentile, in seconds."""
    by_step: dict[int, list[float]] = {}
    for request in requests:
        by_step.setdefault(int(request.arrived_at / STEP_S), []).append(request.took_s)
    return [
        (step * STEP_S, quantile(sorted(took), 0.5), quantile(sorted(took), 0.99))
        for step, took in sorted(by_step.items())
    ]
