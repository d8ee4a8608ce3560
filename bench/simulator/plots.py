"""Pictures of the results, as SVG and PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot
from matplotlib.figure import Figure

from bench.simulator.from_zero import BUSY_S, FromZero
from bench.simulator.mixed_day import ABSENT
from bench.simulator.report import quantile
from bench.simulator.requests import Request
from synapse.domain.job import SlaTier

BEYOND = {"naive Lambda", "provisioned Lambda", "a GPU for each request"}
"""Designs of the mixed day that cost many times as much as all others."""

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


def mixed_day(results: Mapping[str, Sequence[Mapping[str, Any]]], folder: Path) -> None:
    """What each design cost, and how many promises it kept, at each load (`Report.as_json`)."""
    figure, panels = pyplot.subplots(2, 2, figsize=(11, 8.5))
    results = {
        load: [each for each in found if each["name"] not in BEYOND]
        for load, found in results.items()
    }
    names = list(dict.fromkeys(each["name"] for found in results.values() for each in found))
    for panel, (load, found) in zip(panels.flat, results.items(), strict=False):
        for each in sorted(found, key=lambda each: not each["name"].startswith(ABSENT)):
            # Nothing is counted around the others.
            is_ours = each["services_usd"] > 0
            at = (each["machines_usd"], each["kept"] * 100)
            colour, marker = ("#336699", "o") if is_ours else ("#cc7722", "s")
            colour = "#aaaaaa" if each["name"].startswith(ABSENT) else colour
            whole = each["machines_usd"] + each["services_usd"]
            panel.plot([at[0], whole], [at[1], at[1]], color=colour, linewidth=1)
            panel.scatter(*at, color=colour, marker=marker)
            label = str(names.index(each["name"]) + 1)
            panel.annotate(label, at, textcoords="offset points", xytext=(5, 3), fontsize=8)
        panel.set_title(load)
        panel.set_xlabel("machines, USD a day (of two hours); the line: our services")
        panel.set_ylabel("gold and silver kept, %")
        panel.grid(visible=True, color="#e5e5e5")
    for number, name in enumerate(names):
        column, row = divmod(number, 5)
        place = (0.03 + 0.33 * column, 0.107 - 0.024 * row)
        figure.text(*place, f"{number + 1}  {name}", fontsize=8)
    figure.suptitle(
        "A mixed day on each design: left is cheaper, up is better "
        "(blue: Synapse; grey: with CPU machines, not in the template)"
    )
    figure.tight_layout(rect=(0, 0.12, 1, 1))
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


LINES = {
    "Synapse, from zero": ("#336699", "o", "-"),
    "Synapse, warm by the clock": ("#336699", "s", "--"),
    "naive Lambda": ("#cc7722", "^", "-"),
    "provisioned Lambda": ("#cc7722", "v", "--"),
    "a GPU for each request": ("#777777", "x", ":"),
    "always-on GPU": ("#444444", "D", "-"),
}
"""Of the designs of the sweep: colour, marker and stroke."""


def sweep(results: Mapping[str, Sequence[Mapping[str, Any]]], folder: Path) -> None:
    """What a thousand requests cost, and how many promises are kept, over the rate; by model."""
    figure, panels = pyplot.subplots(len(results), 2, figsize=(11, 4 * len(results)), sharex=True)
    for (cost, kept), (model, found) in zip(panels, results.items(), strict=True):
        for name, (colour, marker, stroke) in LINES.items():
            mine = [each for each in found if each["name"] == name]
            rates = [each["per_s"] for each in mine]
            style = {"color": colour, "marker": marker, "linestyle": stroke, "markersize": 5}
            cost.loglog(rates, [each["usd_per_1k"] for each in mine], label=name, **style)
            kept.semilogx(rates, [each["kept"] * 100 for each in mine], **style)
        cost.set_title(f"{model}: USD for 1,000 delivered")
        kept.set_title(f"{model}: gold and silver kept, %")
        kept.set_ylim(-3, 103)
        for panel in (cost, kept):
            panel.grid(visible=True, which="major", color="#e5e5e5")
    for panel in panels[-1]:
        panel.set_xlabel("requests a second, on the average of the day")
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="lower center", ncols=3)
    figure.suptitle("The same day at other rates: what each design costs, and what it keeps")
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    save(figure, folder, "simulation-sweep")
