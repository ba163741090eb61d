r"""What is known of items beside their embeddings: columns of texts, numbers, truths or tuples of them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Column = npt.NDArray[np.object_]
Marks = dict[tuple[str, Any], set[int]]  # the rows that have a value, by its kind and itself
TAKEN = ('user', 'rank', 'item', 'similar', 'score', 'because', 'because_title')  # names in the tables of a retriever


def check_columns(items: Any, count: int, known: Sequence[str] | None = None) -> dict[str, Column]:
    r"""Returns columns as arrays of plain values.

    Args:
        items (DataFrame or mapping, optional): The columns by name.
        count (int): How many values each needs.
        known (sequence of str, optional): The only names. (default: any that a table of results does not have already)

    Raises:
        TypeError: If there is something else.
        ValueError: If a name, a number of values or a value is wrong.
    """
    if items is None:
        return {}
    if not isinstance(items, Mapping) and not hasattr(items, 'columns'):
        raise TypeError(f"'items' need to be a DataFrame or a mapping of columns (got {type(items).__name__})")
    out = {}
    for name in items if isinstance(items, Mapping) else items.columns:
        if not isinstance(name, str) or name in TAKEN or name.startswith('score['):
            raise ValueError(f"names of columns of 'items' need to be strings, none of {TAKEN} (got {name!r})")
        if known is not None and name not in known:
            raise ValueError(f"'items' need to have columns among {list(known)} (got '{name}')")
        values = items[name]
        if isinstance(values, str) or not hasattr(values, '__len__') or isinstance(values, Mapping):
            raise ValueError(f"column '{name}' of 'items' needs to be a sequence (got {type(values).__name__})")
        if len(values) != count:
            raise ValueError(f"column '{name}' of 'items' needs one value for each, {count} (got {len(values)})")
        values = values.tolist() if hasattr(values, 'tolist') else values
        out[name] = as_column([_plain(value, name) for value in values])
    return out


def as_column(values: Sequence[Any]) -> Column:
    r"""Returns any values, sequences among them, as an array of one dimension."""
    return np.fromiter(values, dtype=object, count=len(values))


def value_marks(column: Column, rows: Sequence[int]) -> Marks:
    r"""Returns which of the rows have each value; a tuple counts by its members."""
    out: Marks = {}
    add_marks(out, column, rows)
    return out


def add_marks(known: Marks, column: Column, rows: Sequence[int]) -> None:
    r"""Adds rows to what :func:`value_marks` returned."""
    for row in rows:
        for key in _keys(column[row]):
            known.setdefault(key, set()).add(row)


def unmark(known: Marks, column: Column, rows: Sequence[int]) -> None:
    r"""Takes rows out of what :func:`value_marks` returned."""
    for row in rows:
        for key in _keys(column[row]):
            known[key].discard(row)


def matches(known: Marks, name: str, wanted: Any, size: int) -> Tensor:
    r"""Returns which of ``size`` rows have one of the wanted values.

    Raises:
        ValueError: If a value is of a kind that the column has none of.
    """
    if isinstance(wanted, Mapping) or getattr(wanted, 'ndim', 1) > 1:
        raise ValueError(f"'where' needs one value or a list of them for the column '{name}' (got {wanted!r})")
    if hasattr(wanted, 'tolist'):
        wanted = wanted.tolist()
    values = list(wanted) if isinstance(wanted, (list, tuple, set, frozenset, range)) else [wanted]
    kinds = sorted({kind for kind, _ in known} - {'nothing'})
    mask = torch.zeros(size, dtype=torch.bool)
    for value in values:
        value = value.item() if isinstance(value, np.generic) else value
        kind = _kind(value)
        if kind is None or (kinds and kind not in (*kinds, 'nothing')):
            raise ValueError(f"'where' needs {' or '.join(kinds)} for the column '{name}' (got {value!r})")
        rows = known.get((kind, value), ())
        mask[torch.from_numpy(np.fromiter(rows, dtype=np.int64, count=len(rows)))] = True
    return mask


def _keys(value: Any) -> list[tuple[str, Any]]:
    return [(str(_kind(one)), one) for one in (value if isinstance(value, tuple) else (value,))]


def _kind(value: Any) -> str | None:
    if value is None:
        return 'nothing'
    for kind, of in (('texts', str), ('truths', bool), ('numbers', (int, float))):
        if isinstance(value, of):
            return kind
    return None


def _plain(value: Any, name: str) -> Any:
    r"""Returns a value of a column as it is kept; what pandas writes for no value is :obj:`None`."""
    if hasattr(value, 'tolist'):  # of an array or one of its values
        value = value.tolist()
    if isinstance(value, (list, tuple, set, frozenset)):
        members = tuple(_plain(one, name) for one in (sorted(value, key=str) if isinstance(value, set) else value))
        if not any(isinstance(one, tuple) for one in members):
            return members
    if type(value).__name__ in ('NAType', 'NaTType') or (isinstance(value, float) and math.isnan(value)):
        return None
    if _kind(value) is None:
        raise ValueError(
            f"values of column '{name}' of 'items' need to be texts, numbers, truths, None, or lists of them "
            f'(got {value!r})'
        )
    return value
