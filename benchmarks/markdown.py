r"""Tables of rows, in Markdown."""

from pathlib import Path
from typing import Any

import pandas as pd


def read(path: Path, **cells: Any) -> pd.DataFrame:
    r"""Returns the rows of a file, or those of them with the given cells.

    Raises:
        FileNotFoundError: If there are none.
    """
    rows = pd.read_csv(path)
    for name, value in cells.items():
        rows = rows[rows[name] == value]
    if rows.empty:
        raise FileNotFoundError(f"no rows of {cells} in '{path}'")
    return rows


def table(header: list[str], rows: list[list[str]]) -> str:
    r"""Returns a table whose first column is of names and whose others are of figures."""
    lines = [header, ['---'] + ['---:'] * (len(header) - 1), *rows]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


def spread(values: 'pd.Series[float]') -> str:
    r"""Returns mean ± standard deviation without the leading zeros."""
    mean = f'{values.mean():.4f}'.removeprefix('0')
    return mean if len(values) < 2 else f'{mean} ± {values.std():.4f}'.replace('± 0', '± ')
