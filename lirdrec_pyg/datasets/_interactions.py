r"""What the datasets that are built of raw tables share: duplicates, k-core, and numbering."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch_geometric.data import HeteroData

from lirdrec_pyg.typing import INTERACTS, ITEM, USER

Array = npt.NDArray[Any]
Duplicates = Literal['last', 'first', 'error']


def deduplicate(user: Array, item: Array, time: Array | None = None, keep: Duplicates = 'last') -> Array:
    r"""Returns the sorted positions of one interaction for each pair of user and item.

    Args:
        user (numpy.ndarray): Codes of the users.
        item (numpy.ndarray): Codes of the items.
        time (numpy.ndarray, optional): Times that order repeated pairs; the positions decide between equal ones.
        keep (str, optional): ``'last'`` or ``'first'`` by time; ``'error'`` refuses repeated pairs.

    Shapes:
        - **user**, **item**, **time:** :math:`(E)`
    """
    if keep not in ('last', 'first', 'error'):
        raise ValueError(f"'duplicates' needs to be 'last', 'first' or 'error' (got {keep!r})")
    order = np.lexsort((np.arange(len(user)), np.zeros(len(user)) if time is None else time, item, user))
    same = (user[order][1:] == user[order][:-1]) & (item[order][1:] == item[order][:-1])
    if keep == 'error' and same.any():
        row = int(order[1:][same].min())
        raise ValueError(f"'duplicates' is 'error', and {int(same.sum())} interactions repeat a pair of user and item "
                         f'(first in row {row})')  # fmt: skip
    chosen = np.append(~same, True) if keep == 'last' else np.insert(~same, 0, True)
    return np.sort(order[chosen[: len(order)]])


def k_core(user: Array, item: Array, k: int) -> Array:
    r"""Returns the sorted positions of the interactions that remain when users and items with fewer than :math:`k`
    interactions are removed until there are none.

    Shapes:
        - **user**, **item:** :math:`(E)` codes from 0
    """
    rows = np.arange(len(user))
    size = -1
    while size != len(rows):
        size = len(rows)
        for codes in (user, item):
            rows = rows[np.bincount(codes[rows], minlength=1)[codes[rows]] >= k]
    return rows


def number(
    user: Array,
    item: Array,
    user_ids: Sequence[str],
    item_ids: Sequence[str],
    time: Array | None = None,
    rating: Array | None = None,
    split: Array | None = None,
    cold_items: bool = False,
) -> tuple[HeteroData, Array]:
    r"""Numbers the users and items that occur, in the order of their raw ids (by value, if all are decimal numbers),
    and sorts interactions by user, time and item.

    Args:
        user (numpy.ndarray): Codes of the users: positions in ``user_ids``.
        item (numpy.ndarray): Codes of the items: positions in ``item_ids``.
        user_ids (sequence of str): The raw ids of the users.
        item_ids (sequence of str): The raw ids of the items.
        time (numpy.ndarray, optional): The times.
        rating (numpy.ndarray, optional): The ratings.
        split (numpy.ndarray, optional): The splits (0, 1, 2).
        cold_items (bool, optional): Whether items without interactions are numbered, too. (default: :obj:`False`)

    Returns:
        The data with ``edge_index`` and ``raw_id``, and the code of each item.
    """
    users = _sorted_by_id(np.unique(user).tolist(), user_ids)
    items = _sorted_by_id(list(range(len(item_ids))) if cold_items else np.unique(item).tolist(), item_ids)
    data = HeteroData()
    renumbered = []
    for node_type, code, kept, ids in [(USER, user, users, user_ids), (ITEM, item, items, item_ids)]:
        position = np.zeros(len(ids), dtype=np.int64)
        position[kept] = np.arange(len(kept))
        renumbered.append(position[code])
        data[node_type].num_nodes = len(kept)
        data[node_type].raw_id = [ids[i] for i in kept]
    keys = (renumbered[1], renumbered[0]) if time is None else (renumbered[1], time, renumbered[0])
    order = np.lexsort(keys)
    data[INTERACTS].edge_index = torch.from_numpy(np.stack(renumbered)[:, order])
    for name, values in [('time', time), ('rating', rating), ('split', split)]:
        if values is not None:
            values = values[order].astype(np.float32) if name == 'rating' else values[order]
            data[INTERACTS][name] = torch.from_numpy(values)
    return data, items


def _sorted_by_id(codes: list[int], ids: Sequence[str]) -> Array:
    if all(ids[code].isdecimal() for code in codes):
        return np.array(sorted(codes, key=lambda code: (int(ids[code]), ids[code])), dtype=np.int64)
    return np.array(sorted(codes, key=ids.__getitem__), dtype=np.int64)
