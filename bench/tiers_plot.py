"""The picture of `bench.tiers`: latencies with and without bronze, and what bronze got."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from bench.tiers import SLO_MS, Tiers

COLOURS = {"gold": "#b8860b", "silver": "#708090", "bronze": "#a0522d"}


def draw(tiers: Tiers, folder: Path, name: str) -> None:
    """Write `name`.svg and `name`.png into the folder."""
    # Text stays text, and the file the same for the same figures.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 9})
    figure, (latencies, throughput) = plt.subplots(
        1, 2, figsize=(9, 3.6), width_ratios=(2, 1), layout="constrained"
    )
    _latencies(latencies, tiers)
    _throughput(throughput, tiers)
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    figure.savefig(folder / f"{name}.png", dpi=120)
    plt.close(figure)


def _latencies(axes: Axes, tiers: Tiers) -> None:
    for tier in tiers.scenario.rates_per_s:
        for bronze_on in (False, True):
            latencies = tiers.latencies_ms(tier, bronze_on=bronze_on)
            shares = [(number + 1) / len(latencies) for number in range(len(latencies))]
            kept = tiers.attainment(tier, bronze_on=bronze_on)
            beside = "beside bronze" if bronze_on else "alone"
            axes.step(
                latencies,
                shares,
                where="post",
                color=COLOURS[tier],
                linestyle="-" if bronze_on else ":",
                label=f"{tier} {beside}: {kept:.1%} within {SLO_MS[tier]:.0f} ms",
            )
        axes.axvline(SLO_MS[tier], color=COLOURS[tier], linewidth=0.8, alpha=0.6)
    axes.set_xlim(0, 1.3 * max(SLO_MS[tier] for tier in tiers.scenario.rates_per_s))
    what = "time to the first token" if tiers.scenario.streams else "time to the answer"
    axes.set(xlabel=f"{what}, ms", ylabel="share of the requests", title="Gold and silver")
    axes.legend(loc="lower right", fontsize=8, frameon=False)


def _throughput(axes: Axes, tiers: Tiers) -> None:
    left_over, got = tiers.left_over_per_s, tiers.bronze_per_s
    bars = axes.bar(
        ["left over", "bronze got"],
        [left_over, got],
        color=[f"{COLOURS['bronze']}55", COLOURS["bronze"]],
    )
    axes.bar_label(bars, fmt="%.3g/s")
    axes.set(ylabel="jobs a second", title=f"Bronze: {got / left_over:.0%} of what is left over")
