"""From measurements to a profile: times per token, the cost of company, the best batch, the price.

Each cell speaks through its median, so that single slow items do not count, and cells that fit
badly weigh less (Huber). Errors are taken relative to the time, as 1 ms matters in 5 and not in
5,000. Nothing comes out negative: no tokens and no company make an item quicker.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.domain.profile import Profile, slowdown
from synapse.domain.profiling import Measurement, Plan, ProfilingError, best_batch, throughputs

ROUNDS = 5
"""Of weighing the cells by how well they fit."""

HUBER = 1.345
SATURATION_GAIN = 0.6
CLEAR_MISFIT = 0.02
"""Saturation is believed where it leaves at most this share of a misfit that was clear."""

UNKNOWN_COMPANY = 1.0
"""Where nobody measured it: items take turns, which is the worst that company usually does."""

P99 = 0.99
MAX_COMPANY = 8.0

Row = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _Point:
    """The median time of a cell."""

    size: Row
    in_flight: int
    ms: float


def fit(
    spec: ModelSpec, pool: Pool, plan: Plan, done: Sequence[Measurement], now: float
) -> Profile:
    """The profile that the measurements show.

    Raises:
        ProfilingError: they do not even tell how long an item alone takes.
    """
    useful = _useful(spec, pool, done)
    has_first = all(each.first_ms for each in useful)
    lines = _generating(useful) if has_first else _answering(useful)
    rates = dict(throughputs(plan, useful))
    best = best_batch(plan, useful)
    items_per_s = rates.get(best, 0.0)
    usd_per_1k_s = 1000 * pool.price_per_hour_usd / 3600
    return Profile(
        model=spec.name,
        version=spec.version,
        pool=pool.name,
        accelerator=pool.accelerator,
        base_ms=lines.base_ms,
        prompt_token_ms=lines.prompt_ms,
        output_token_ms=lines.output_ms,
        company=lines.company,
        spread=_spread([each.total_ms for each in useful]),
        best_batch=best,
        items_per_s=items_per_s,
        usd_per_1k_items=usd_per_1k_s / items_per_s if items_per_s else 0.0,
        samples=sum(len(each.total_ms) for each in useful),
        measured_at=now,
        saturates_at=lines.saturates_at,
        first_company=lines.first_company,
        first_spread=_spread([each.first_ms for each in useful]) if has_first else None,
        fit_error=lines.error,
        was_idle=all(each.was_idle for each in useful),
    )


def _useful(spec: ModelSpec, pool: Pool, done: Sequence[Measurement]) -> list[Measurement]:
    useful = [each for each in done if each.counts]
    if not any(each.cell.in_flight == 1 for each in useful):
        failed = sum(each.failed for each in done)
        raise ProfilingError(
            f"model {spec.name!r} in pool {pool.name!r}: no item alone was measured "
            f"({failed} failed); give it more time or look at its worker"
        )
    return useful


@dataclass(frozen=True, slots=True)
class _Lines:
    base_ms: float
    prompt_ms: float
    output_ms: float
    company: float
    saturates_at: int
    first_company: float | None
    error: float


def _answering(useful: Sequence[Measurement]) -> _Lines:
    """Whole answers only: a base, and a time for each token of the input."""
    points = [
        _Point((1.0, each.prompt_tokens), each.cell.in_flight, median(each.total_ms))
        for each in useful
    ]
    (base_ms, prompt_ms), company, saturates_at = _fitted(points)

    def predicted(point: _Point) -> float:
        alone_ms = base_ms + prompt_ms * point.size[1]
        return alone_ms * slowdown(point.in_flight, company, saturates_at)

    error = _error(points, predicted)
    return _Lines(base_ms, prompt_ms, 0.0, company, saturates_at, None, error)


def _generating(useful: Sequence[Measurement]) -> _Lines:
    """The first token tells of the base and the prompt, what follows of the tokens written."""
    firsts = [
        _Point((1.0, each.prompt_tokens), each.cell.in_flight, median(each.first_ms))
        for each in useful
    ]
    base_ms, prompt_ms = _sizes([point for point in firsts if point.in_flight == 1])
    rests = [
        _Point((each.output_tokens,), each.cell.in_flight, max(1e-6, _rest_ms(each)))
        for each in useful
        if each.output_tokens > 1 and each.cell.in_flight == 1
    ]
    output_ms = _sizes(rests)[0] if rests else 0.0
    wholes = [
        _Point(
            (base_ms + prompt_ms * each.prompt_tokens + output_ms * each.output_tokens,),
            each.cell.in_flight,
            median(each.total_ms),
        )
        for each in useful
    ]
    # The sizes are settled; what is left open is what company does to them.
    company, saturates_at = _company(wholes, (1.0,))
    crowded = [point for point in firsts if point.in_flight > 1]
    first_company = UNKNOWN_COMPANY
    if crowded:
        first_company = _best_company(crowded, (base_ms, prompt_ms), saturates_at)

    def predicted(point: _Point) -> float:
        return point.size[0] * slowdown(point.in_flight, company, saturates_at)

    error = _error(wholes, predicted)
    return _Lines(base_ms, prompt_ms, output_ms, company, saturates_at, first_company, error)


def _rest_ms(measured: Measurement) -> float:
    return median(
        total - first for total, first in zip(measured.total_ms, measured.first_ms, strict=True)
    )


def _fitted(points: Sequence[_Point]) -> tuple[Row, float, int]:
    """The times of the parts of a size, from items alone, and then what company does to them.

    Not both from all cells at once: a little less for the size and a little more for company fit
    a disturbed machine just as well.
    """
    times = _sizes([point for point in points if point.in_flight == 1])
    return times, *_company(points, times)


def _sizes(points: Sequence[_Point]) -> Row:
    """What each part of a size costs alone: relative least squares, robust, never negative."""
    rows = [tuple(part / point.ms for part in point.size) for point in points]
    weights = [1.0] * len(rows)
    times = _least_squares(rows, weights)
    for _ in range(ROUNDS):
        errors = [abs(1 - _dot(row, times)) for row in rows]
        bound = HUBER * 1.4826 * max(median(errors), 1e-4)
        weights = [min(1.0, bound / max(error, 1e-12)) for error in errors]
        times = _least_squares(rows, weights)
    return times


def _least_squares(rows: Sequence[Row], weights: Sequence[float]) -> Row:
    """The x ≥ 0 for which rows · x is nearest to 1: the best of all choices of its zeros."""
    width = len(rows[0])
    best, best_loss = (0.0,) * width, math.inf
    for count in range(1, width + 1):
        for columns in combinations(range(width), count):
            found = _solved(rows, weights, columns)
            if found is None or min(found) < 0:
                continue
            full = tuple(found[columns.index(at)] if at in columns else 0.0 for at in range(width))
            loss = sum(w * (1 - _dot(row, full)) ** 2 for row, w in zip(rows, weights, strict=True))
            if loss < best_loss * (1 - 1e-9):
                best, best_loss = full, loss
    return best


def _solved(
    rows: Sequence[Row], weights: Sequence[float], columns: tuple[int, ...]
) -> tuple[float, ...] | None:
    """The normal equations of one or two columns; None if they do not say."""
    if len(columns) == 1:
        (at,) = columns
        square = sum(w * row[at] ** 2 for row, w in zip(rows, weights, strict=True))
        return (
            (sum(w * r[at] for r, w in zip(rows, weights, strict=True)) / square,)
            if square
            else None
        )
    left, right = columns
    weighted = list(zip(rows, weights, strict=True))
    aa = sum(w * row[left] ** 2 for row, w in weighted)
    bb = sum(w * row[right] ** 2 for row, w in weighted)
    ab = sum(w * row[left] * row[right] for row, w in weighted)
    a, b = sum(w * row[left] for row, w in weighted), sum(w * row[right] for row, w in weighted)
    determinant = aa * bb - ab * ab
    if determinant <= 1e-9 * aa * bb:
        return None
    return (a * bb - b * ab) / determinant, (b * aa - a * ab) / determinant


def _company(points: Sequence[_Point], times: Row) -> tuple[float, int]:
    """What company costs, and from where on items take turns (0: not seen)."""
    points = [point for point in points if point.in_flight > 1]
    if not points:
        return UNKNOWN_COMPANY, 0
    plain = _best_company(points, times, 0)
    misfit = _misfit(points, times, plain, 0)
    best = (plain, 0, SATURATION_GAIN * misfit)
    if misfit < CLEAR_MISFIT:
        return plain, 0
    for at in _turning_points(points):
        company = _best_company(points, times, at)
        found = _misfit(points, times, company, at)
        if found < best[2]:
            best = (company, at, found)
    return best[0], best[1]


def _turning_points(points: Sequence[_Point]) -> list[int]:
    """Where items may begin to take turns: up to 16 all, beyond that in steps of a sixteenth."""
    most = max(point.in_flight for point in points)
    found = [1]
    while found[-1] < most - 1:
        found.append(found[-1] + max(1, found[-1] // 16))
    return found


def _best_company(points: Sequence[_Point], times: Row, saturates_at: int) -> float:
    """The company with the least misfit, among those that would explain one of the cells."""
    found = [0.0]
    for point in points:
        n = point.in_flight
        side_by_side = min(n, saturates_at) if saturates_at else n
        if side_by_side > 1:
            slower = point.ms / max(1e-9, _dot(point.size, times)) * side_by_side / n
            found.append(min(max(0.0, (slower - 1) / (side_by_side - 1)), MAX_COMPANY))
    return min(found, key=lambda company: _misfit(points, times, company, saturates_at))


def _misfit(points: Sequence[_Point], times: Row, company: float, saturates_at: int) -> float:
    """The mean absolute difference of the logarithms."""
    return math.fsum(
        abs(
            math.log(
                point.ms
                / max(
                    1e-9, _dot(point.size, times) * slowdown(point.in_flight, company, saturates_at)
                )
            )
        )
        for point in points
    ) / len(points)


def _error(points: Sequence[_Point], predicted: Callable[[_Point], float]) -> float:
    return median(abs(predicted(point) - point.ms) / point.ms for point in points)


def _spread(cells: Sequence[Sequence[float]]) -> float:
    """The 99th percentile of items' times over the median of their cell; cells weigh the same."""
    ratios = sorted(
        (time / max(median(times), 1e-9), 1 / len(times)) for times in cells for time in times
    )
    reached = 0.0
    for ratio, weight in ratios:
        reached += weight
        if reached >= P99 * len(cells) * (1 - 1e-9):
            return max(1.0, ratio)
    return 1.0


def _dot(row: Row, times: Row) -> float:
    return math.fsum(part * time for part, time in zip(row, times, strict=True))
