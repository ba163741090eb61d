import math
from collections.abc import Sequence
from typing import NamedTuple

WIDTH, HEIGHT = 400, 246  # of a chart, in the units of its drawing
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 28, 38  # what is around the lines
ROWS = 12  # of the table that stands beside a chart


class Series(NamedTuple):
    r"""A named line. Points that are not finite are left out."""

    name: str
    color: str  # the class that styles it
    x: Sequence[float]
    y: Sequence[float]


class Line(NamedTuple):
    name: str
    color: str
    path: str


class Tick(NamedTuple):
    at: float
    text: str


class Chart(NamedTuple):
    r"""Lines with what a template needs to draw them, and the same as words and as a table."""

    id: str
    title: str
    summary: str
    x_label: str
    y_label: str
    lines: list[Line]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    mark: tuple[float, float, str] | None
    columns: list[str]
    rows: list[list[str]]
    box: tuple[int, int, int, int] = (LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM)


def chart(
    id: str,
    title: str,
    summary: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    *,
    shares: tuple[bool, bool] = (False, False),
    mark: tuple[float, float, str] | None = None,
    from_zero: bool = True,
) -> Chart | None:
    r"""Lays out a chart of lines that share the axes.

    Args:
        id (str): Its name on the page.
        title (str): Its title.
        summary (str): What it shows, in a sentence.
        series (sequence of Series): The lines.
        x_label (str): What is on the axis to the right.
        y_label (str): What is on the axis up.
        shares ((bool, bool), optional): Whether each axis is of shares. (default: neither)
        mark ((float, float, str), optional): A point to mark, and what it is.
        from_zero (bool, optional): Whether the axis up starts at zero. (default: :obj:`True`)

    Returns:
        The chart, or :obj:`None` if no line has a point.
    """
    points = [
        [(float(x), float(y)) for x, y in zip(one.x, one.y, strict=True) if math.isfinite(x) and math.isfinite(y)]
        for one in series
    ]
    every = [point for part in points for point in part]
    if not every:
        return None
    x_ticks, x_low, x_high = _axis([x for x, _ in every], shares[0], whole=not shares[0], tight=True)
    ys = [y for _, y in every] + ([0.0] if from_zero else [])
    y_ticks, y_low, y_high = _axis(ys, shares[1])

    def place(x: float, y: float) -> tuple[float, float]:
        right = LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)
        return round(right, 1), round(HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM), 1)

    lines = [
        Line(one.name, one.color, 'M' + ' '.join(f'{x:g},{y:g}' for x, y in (place(*point) for point in part)))
        for one, part in zip(series, points, strict=True)
        if part
    ]
    known = [dict(part) for part in points]
    xs = thinned(sorted({x for part in points for x, _ in part}), ROWS)
    if mark is not None and mark[0] not in xs:
        xs = sorted([*xs, mark[0]])
    rows = [
        [_text(x, shares[0])] + ['–' if x not in part else _text(part[x], shares[1], exact=True) for part in known]
        for x in xs
    ]
    return Chart(
        id,
        title,
        summary,
        x_label,
        y_label,
        lines,
        [Tick(place(x, y_low)[0], _text(x, shares[0])) for x in x_ticks],
        [Tick(place(x_low, y)[1], _text(y, shares[1])) for y in y_ticks],
        None if mark is None else (*place(mark[0], mark[1]), mark[2]),
        [x_label, *(one.name for one in series)],
        rows,
    )


def thinned(values: Sequence[float], most: int) -> list[float]:
    r"""Returns at most so many of the values, evenly, the first and the last among them."""
    if len(values) <= most:
        return list(values)
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]


def number(value: float) -> str:
    r"""Returns a number with three digits that count, never as a power of ten unless it is extreme."""
    if not math.isfinite(value):
        return '–'
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        digits = 0 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
        return f'{value:,.{min(digits, 4)}f}'.replace('-', '−')
    return f'{value:.2g}'.replace('-', '−')


def percent(share: float) -> str:
    return f'{100 * share:.1f} %'


def _text(value: float, share: bool, exact: bool = False) -> str:
    if share:
        return percent(value) if exact or round(100 * value, 6) % 1 else f'{100 * value:.0f} %'
    return f'{value:,.0f}' if value == int(value) else number(value) if exact else f'{value:g}'


def _axis(
    values: Sequence[float], share: bool, whole: bool = False, tight: bool = False
) -> tuple[list[float], float, float]:
    r"""Returns round ticks, about five, and the two ends of an axis, which are ticks unless it is to be tight."""
    low, high = min(values), max(values)
    if high == low:
        high = low + (abs(low) or 1.0)
    if share and high > 0.8:
        high = 1.0
    step = 10.0 ** math.floor(math.log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (factor * step) <= 5)
    step = max(step, 1.0) if whole else step
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [round(i * step, 12) for i in range(first, last + 1)]
    if tight:
        return [tick for tick in ticks if low - 1e-9 <= tick <= high + 1e-9], low, high
    return ticks, ticks[0], ticks[-1]
