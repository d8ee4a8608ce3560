"""`python -m bench`: measure, and print each figure beside its goal."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench import (
    auth,
    batches,
    cross_check,
    downloads,
    embeddings,
    engine_ratio,
    noop,
    scale,
    start,
    streaming,
    switching,
    tiers,
    tiers_plot,
)
from synapse_server.cli import MODELS

ROUNDS, ROUNDS_OF_TIERS = 5, 2
AUTH_REQUESTS = 3000
ENOUGH_CLIENTS = 64
"""The least by which the goal of durable jobs a second is measured."""

EMBEDDINGS_ROUND_S = 2.0
IMAGES = Path(__file__).parents[1] / "docs" / "images"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, help="pairs of runs: 5 unless given, 2 of tiers")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each load")
    parser.add_argument("--only", choices=PARTS, help="one part")
    arguments = parser.parse_args()
    print(f"Machine: {_machine()}\n")
    for name, part in PARTS.items():
        if arguments.only in (None, name):
            part(arguments.rounds, arguments.seconds)


def _engine(rounds: int) -> None:
    print("Engine-bound: 32 tokens a job, tokens/s (medians; ratio of pairs: median, min–max)")
    print("| concurrent | system | bare engine | system ÷ bare | goal |")
    print("| --- | --- | --- | --- | --- |")
    for row in engine_ratio.measure((1, 8, 32), rounds):
        spread = f"{row.low:.2f}–{row.high:.2f}"
        print(
            f"| {row.concurrency} | {row.system:.1f} | {row.bare:.1f} "
            f"| {row.ratio:.3f} ({spread}) | ≥ 0.95 |"
        )
    print()


def _stream(rounds: int) -> None:
    compared, held = streaming.measure((1, 8), rounds)
    print("Streams of 32 tokens over HTTP beside the bare engine (medians; differences of pairs)")
    print("| streams | figure | system | bare engine | difference | goal |")
    print("| --- | --- | --- | --- | --- | --- |")
    for row in compared:
        print(
            f"| {row.streams} | first token, ms (p50) | {row.first_ms:.1f} "
            f"| {row.bare_first_ms:.1f} | {row.first_overhead_ms:+.1f} | ≤ +10 |"
        )
        print(
            f"| {row.streams} | between tokens, ms (p50) | {row.per_token_ms:.2f} "
            f"| {row.bare_per_token_ms:.2f} | {row.per_token_overhead_ms:+.2f} | ≤ +1 |"
        )
        print(f"| {row.streams} | tokens/s, system ÷ bare | | | {row.ratio:.3f} | |")
    print()
    print(
        f"{held.streams} streams open at once: {held.whole} came whole, in {held.seconds:.0f} s"
        + (f"; first error: {held.first_error}" if held.first_error else "")
    )
    print()


def _embeddings(rounds: int) -> None:
    found = embeddings.measure(rounds, EMBEDDINGS_ROUND_S)
    print("Embeddings: 16 clients, sentences/s (medians; ratio of pairs: median, min–max)")
    print(
        "| sentences a request | encoding | system | bare session | system ÷ bare "
        "| core-ms a sentence: system, bare | bare ÷ system | goal |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for row in found.throughputs:
        print(
            f"| {row.sentences} | {row.encoding} | {row.system:.0f} | {row.bare:.0f} "
            f"| {row.ratio:.3f} ({row.low:.2f}–{row.high:.2f}) "
            f"| {row.system_core_ms:.1f}, {row.bare_core_ms:.1f} | {row.core_ratio:.2f} | ≥ 0.8 |"
        )
    late = found.latency
    print("| figure | measured | goal |")
    print("| --- | --- | --- |")
    print(f"| p50 at {late.rate:.0f} requests/s, 70 % of the most | {late.p50_ms:.0f} ms | |")
    print(f"| p99 | {late.p99_ms:.0f} ms | < 250 ms |")
    print()


def _noop(seconds: float) -> None:
    result = noop.measure((1, 64, 256), seconds)
    asked, held = result.asked, result.held
    print("No-op jobs, durable, over HTTP: submitted and asked for, and in one request (/infer)")
    print("| figure | submit → result | in one request | goal |")
    print("| --- | --- | --- | --- |")
    for clients, rate in asked.jobs_per_s.items():
        goal = "≥ 1,000" if clients >= ENOUGH_CLIENTS else "–"
        print(
            f"| jobs/s, {clients} clients | {rate:.0f} | {held.jobs_per_s[clients]:.0f} | {goal} |"
        )
    print(f"| p50 at 50 jobs/s | {asked.p50_ms:.1f} ms | {held.p50_ms:.1f} ms | ≤ 5 ms |")
    print(f"| p99 at 50 jobs/s | {asked.p99_ms:.1f} ms | {held.p99_ms:.1f} ms | ≤ 25 ms |")
    print(f"| 1,000 at once, all answered | {result.burst_s:.2f} s | | no error, none lost |")
    print(
        f"| server memory before → after {asked.jobs + held.jobs} jobs "
        f"| {result.memory_before_mib:.0f} → {result.memory_after_mib:.0f} MiB | | flat |"
    )
    print()


def _auth() -> None:
    print("Asking who calls: GET /v1/models with keys and without, in turns (p50)")
    print("| where | requests each | with keys | without | overhead of the pairs | goal |")
    print("| --- | --- | --- | --- | --- | --- |")
    for row in auth.measure(AUTH_REQUESTS):
        print(
            f"| {row.where} | {row.requests} | {row.on_ms:.3f} ms | {row.off_ms:.3f} ms "
            f"| {row.overhead_ms:.3f} ms | ≤ 0.3 ms |"
        )
    print()


def _batches() -> None:
    found = batches.measure()
    print(f"A file batch of {found.lines:,} lines ({found.file_mib:.0f} MiB) on the no-op model")
    print("| figure | measured |")
    print("| --- | --- |")
    print(f"| upload | {found.upload_s:.1f} s |")
    print(f"| looking through the file | {found.validate_s:.1f} s |")
    print(f"| lines/s, first submitted to last answered | {found.lines_per_s:.0f} |")
    print(f"| writing the output file | {found.finalize_s:.1f} s |")
    quarters = ", ".join(f"{mib:.0f}" for mib in found.quarters)
    print(f"| server memory before | {found.before_mib:.0f} MiB |")
    print(f"| at most in each quarter of the lines | {quarters} MiB |")
    print()


def _downloads(rounds: int) -> None:
    found = downloads.measure(rounds)
    size_mb = found.model_bytes / downloads.MB
    print(f"Model downloads of {size_mb:,.0f} MB, MB/s (medians; ratio of pairs: median, min–max)")
    print("| link | 16 connections, dropped | model cache | cache ÷ link | goal | plain copy |")
    print("| --- | --- | --- | --- | --- | --- |")
    for row in found.rows:
        goal = "≥ 0.9" if row.link.rate else ""
        print(
            f"| {row.link.title} | {row.raw / downloads.MB:.0f} | {row.cache / downloads.MB:.0f} "
            f"| {row.ratio:.3f} ({row.low:.2f}–{row.high:.2f}) | {goal} "
            f"| {row.single / downloads.MB:.0f} |"
        )
    print(f"\nSHA-256 on one core, in memory: {found.sha256 / downloads.MB:,.0f} MB/s\n")


def _switch(rounds: int) -> None:
    print("Models of a running worker, seconds (medians); a switch unloads another one first")
    print("| model | load | unload | switch | memory |")
    print("| --- | --- | --- | --- | --- |")
    for row in switching.measure(rounds):
        print(
            f"| {row.model} | {row.load_s:.2f} | {row.unload_s:.2f} | {row.switch_s:.2f} "
            f"| {row.memory_mib:,.0f} MiB |"
        )
    print()


def _scale() -> None:
    bursts = scale.measure()
    print(f"From no worker to {scale.REQUESTS} requests at once and back to none")
    heads = " | ".join(burst.kind for burst in bursts)
    print(f"| figure | {heads} | goal |")
    print("| --- |" + " --- |" * (len(bursts) + 1))
    rows: list[tuple[str, list[str], str]] = [
        ("answered, and right", [str(burst.delivered) for burst in bursts], str(scale.REQUESTS)),
        ("cold start: first request to first worker", _seconds(bursts, "cold_start_s"), ""),
        ("answer after that, p50", _seconds(bursts, "p50_s"), ""),
        ("answer after that, p99", _seconds(bursts, "p99_s"), ""),
        ("all answered", _seconds(bursts, "all_answered_s"), ""),
        ("heartbeats while held", [str(burst.heartbeats) for burst in bursts], ""),
        ("most workers at a time", [str(burst.most_workers) for burst in bursts], ""),
        (
            "last answer to the last worker gone",
            _seconds(bursts, "to_zero_s"),
            f"{scale.IDLE_AFTER_S:g} s of idle time + drain and stop",
        ),
    ]
    for figure, cells, goal in rows:
        print(f"| {figure} | {' | '.join(cells)} | {goal} |")
    for error in (burst.first_error for burst in bursts if burst.first_error):
        print(f"first error: {error}")
    print()


def _seconds(bursts: Sequence[scale.Burst], figure: str) -> list[str]:
    return [f"{getattr(burst, figure):.2f} s" for burst in bursts]


def _tiers(scenario: tiers.Scenario, title: str, seconds: float, rounds: int, name: str) -> None:
    found = tiers.measure(scenario, seconds, rounds)
    print(f"{title}: gold and silver beside a backlog of bronze and without it")
    print(
        "| tier | requests each | within its promise, without bronze | with | p99 | with | goal |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for tier in scenario.rates_per_s:
        goal = "within 1 point" if tier == "gold" else ""
        print(
            f"| {tier} | {len(found.latencies_ms(tier, bronze_on=True))} "
            f"| {found.attainment(tier, bronze_on=False):.2%} "
            f"| {found.attainment(tier, bronze_on=True):.2%} "
            f"| {found.p99_ms(tier, bronze_on=False):.1f} ms "
            f"| {found.p99_ms(tier, bronze_on=True):.1f} ms | {goal} |"
        )
    share = found.bronze_per_s / found.left_over_per_s
    print(
        f"\nBronze: {found.bronze_per_s:.1f} jobs/s of {found.left_over_per_s:.1f} left over "
        f"({found.bronze_alone_per_s:.1f} when alone): {share:.0%}; goal ≥ 80 %\n"
    )
    tiers_plot.draw(found, IMAGES, name)


def _start(rounds: int) -> None:
    print(f"From the command to the first answer (medians of {rounds} starts), each from nothing")
    print("| models | healthy | first answer (least) | processor time of the server | memory |")
    print("| --- | --- | --- | --- | --- |")
    for models in ("echo", "smollm2-135m-instruct,echo", MODELS):
        found = start.measure(models, rounds)
        print(
            f"| {models} | {found.healthy_s:.2f} s "
            f"| {found.first_answer_s:.2f} s ({found.least_s:.2f}) "
            f"| {found.processor_s:.2f} s | {found.memory_mib:.0f} MiB |"
        )
    print()


def _client(rounds: int, seconds: float) -> None:
    print("Our load generator beside wrk, which asks the same server the same (medians)")
    try:
        found = cross_check.measure(rounds, seconds)
    except cross_check.NoWrk as error:
        print(f"not measured: {error}\n")
        return
    print(
        "| clients | answers/s: ours, wrk | ours ÷ wrk | p50, ms: ours, wrk | p99, ms "
        "| server's processor ms a request |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for row in found:
        ours, wrk = row.ours, row.wrk
        print(
            f"| {row.clients} | {ours.per_s:.0f}, {wrk.per_s:.0f} | {row.ratio:.2f} "
            f"| {ours.p50_ms:.1f}, {wrk.p50_ms:.1f} | {ours.p99_ms:.1f}, {wrk.p99_ms:.1f} "
            f"| {ours.server_ms:.2f}, {wrk.server_ms:.2f} |"
        )
    print()


def _machine() -> str:
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores of {model}, Python {platform.python_version()}"


PARTS: Mapping[str, Callable[[int | None, float], None]] = {
    "engine": lambda rounds, seconds: _engine(rounds or ROUNDS),
    "stream": lambda rounds, seconds: _stream(rounds or ROUNDS),
    "embeddings": lambda rounds, seconds: _embeddings(rounds or ROUNDS),
    "noop": lambda rounds, seconds: _noop(seconds),
    "auth": lambda rounds, seconds: _auth(),
    "batches": lambda rounds, seconds: _batches(),
    "downloads": lambda rounds, seconds: _downloads(rounds or ROUNDS),
    "switch": lambda rounds, seconds: _switch(rounds or ROUNDS),
    "scale": lambda rounds, seconds: _scale(),
    "tiers": lambda rounds, seconds: _tiers(
        tiers.TWO_POOLS, "Two pools", seconds, rounds or ROUNDS_OF_TIERS, "tiers"
    ),
    "tiers-llm": lambda rounds, seconds: _tiers(
        tiers.ONE_LLM, "One LLM", 3 * seconds, rounds or ROUNDS_OF_TIERS, "tiers-llm"
    ),
    "tiers-llm-unprofiled": lambda rounds, seconds: _tiers(
        tiers.ONE_UNPROFILED_LLM,
        "One LLM without a profile",
        3 * seconds,
        rounds or ROUNDS_OF_TIERS,
        "tiers-llm-unprofiled",
    ),
    "start": lambda rounds, seconds: _start(rounds or ROUNDS),
    "client": lambda rounds, seconds: _client(rounds or ROUNDS, seconds),
}
"""In their order, with the rounds that were asked for, if any, and the seconds of a load."""


if __name__ == "__main__":
    main()
