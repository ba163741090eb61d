r"""Tables of rows, in Markdown."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import ttest_rel


def read(path: Path, **cells: Any) -> pd.DataFrame:
    r"""Returns the rows of a file, or those of them with the given cells.

    Raises:
        FileNotFoundError: If there are none.
    """
    rows = cached(path).copy()
    for name, value in cells.items():
        rows = rows[rows[name] == value]
    if rows.empty:
        raise FileNotFoundError(f"no rows of {cells} in '{path}'")
    return rows


def cached(path: Path, reader: Callable[[Path], pd.DataFrame] = pd.read_csv) -> pd.DataFrame:
    r"""Returns what a file holds, which is read once as long as it does not change. It is not to be written to."""
    stamp = path.stat()
    return _cached(path, (stamp.st_mtime_ns, stamp.st_size), reader)


@functools.lru_cache(maxsize=32)
def _cached(path: Path, stamp: tuple[int, int], reader: Callable[[Path], pd.DataFrame]) -> pd.DataFrame:
    return reader(path)


def once(rows: pd.DataFrame, *cells: str) -> pd.DataFrame:
    r"""Returns the rows, none of which may be of the same run as another with other settings.

    Raises:
        ValueError: If two rows have the given cells in common.
    """
    twice = rows[rows.duplicated(list(cells))]
    if not twice.empty:
        raise ValueError(f'rows need to differ in {list(cells)} (got {twice.iloc[0][list(cells)].to_dict()} twice)')
    return rows


def table(header: list[str], rows: list[list[str]]) -> str:
    r"""Returns a table whose first column is of names and whose others are of figures."""
    lines = [header, ['---'] + ['---:'] * (len(header) - 1), *rows]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


def spread(values: 'pd.Series[float]') -> str:
    r"""Returns mean ± standard deviation without the leading zeros."""
    mean = f'{values.mean():.4f}'.removeprefix('0')
    return mean if len(values) < 2 else f'{mean} ± {values.std():.4f}'.replace('± 0', '± ')


def paired(values: 'pd.Series[float]', base: 'pd.Series[float]') -> str:
    r"""Returns the mean difference of two series over the seeds that are in both, its standard deviation, and p of a
    paired t-test."""
    values, base = values.align(base, join='inner')
    difference = values - base
    if len(difference) < 2 or difference.abs().max() < 1e-6:  # what rows are rounded to
        return f'{difference.mean() + 0:+.4f}'.replace('0.', '.')
    p = ttest_rel(values, base).pvalue
    return f'{difference.mean():+.4f} ± {difference.std():.4f}'.replace('0.', '.') + f' (p {p:.1g})'
