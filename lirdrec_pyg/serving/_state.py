r"""Users and items that come and go while others read them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lirdrec_pyg.serving._columns import Column, Marks, add_marks, unmark, value_marks
from lirdrec_pyg.serving._index import Index
from lirdrec_pyg.typing import ITEM

CHUNK = 2**16  # rows whose lengths are taken at once


class Rows(NamedTuple):
    r"""The rows of users or of items at one moment. Those that are nobody's hold anything.

    Args:
        x (Tensor): The embeddings :math:`(N, D)`.
        length (Tensor): The Euclidean length of each :math:`(N)`.
        ids (numpy.ndarray): The raw id of each :math:`(N)`.
        columns (dict): What else is known of each :math:`(N)`, by name.
        alive (Tensor): Whether a row is someone's :math:`(N)`.
        num_alive (int): How many are.
    """

    x: Tensor
    length: Tensor
    ids: Column
    columns: dict[str, Column]
    alive: Tensor
    num_alive: int

    @property
    def full(self) -> bool:
        return self.num_alive == len(self.ids)


@dataclass(frozen=True, eq=False)
class State:
    r"""What a retriever serves at one moment. A change makes another one, so nobody sees half of it.

    Args:
        user (Rows): The users.
        item (Rows): The items.
        ptr (Tensor): Where the history of each row of users starts in ``key``.
        key (Tensor): What users have seen, sorted; see :func:`~lirdrec_pyg.serving._seen.keys`.
        index (Index, optional): The index of the rows of items, which may know later rows and earlier ones, too.
    """

    user: Rows
    item: Rows
    ptr: Tensor
    key: Tensor
    index: Index | None

    def rows(self, kind: str) -> Rows:
        return self.item if kind == ITEM else self.user


class Table:
    r"""The rows of users or of items, as the one who changes them sees it.

    The arrays have room for more rows. New rows go to where no state has one, so states share the arrays and stay
    whole. A row that has left is given to another when no state has it any more.
    """

    def __init__(self, width: int, columns: Sequence[str] = (), room: int = 0) -> None:
        self.size = self.count = 0
        self.free: list[int] = []  # rows before `size` that no state has
        self.position: dict[Any, int] = {}  # of each raw id
        self.columns = list(columns)
        self._marks: dict[str, Marks] = {}
        self._x = torch.empty(room, width)
        self._length, self._alive = torch.empty(room), torch.zeros(room, dtype=torch.bool)
        self._objects = {name: np.empty(room, dtype=object) for name in (None, *self.columns)}

    def reserve(self, count: int) -> Tensor:
        r"""Returns where to write rows."""
        again = self.free[:count]
        end = self.size + count - len(again)
        if end > len(self._x):
            self._grow(end + max(end // 8, 64))
        return torch.cat([torch.tensor(again, dtype=torch.long), torch.arange(self.size, end)])

    def write(self, rows: Tensor, x: Tensor, ids: Sequence[Any] | Column, columns: dict[str, Column]) -> None:
        r"""Writes rows that no state has. What a column lacks is :obj:`None`."""
        if len(rows) == 0:
            return
        place = slice(int(rows[0]), int(rows[-1]) + 1) if bool((rows.diff() == 1).all()) else rows
        self._x[place], self._length[place] = x, lengths(x)
        self._objects[None][rows.numpy()] = np.fromiter(ids, dtype=object, count=len(ids))
        for name in self.columns:
            self._objects[name][rows.numpy()] = columns.get(name)

    def commit(self, come: Tensor, leave: Tensor) -> None:
        r"""Makes rows that are written someone's, and others nobody's."""
        gone, new = leave.tolist(), come.tolist()
        ids = self._objects[None]
        for name, known in self._marks.items():
            unmark(known, self._objects[name], gone)
            add_marks(known, self._objects[name], new)
        for row in gone:
            del self.position[ids[row]]
        self.position.update(zip(ids[come.numpy()].tolist(), new, strict=True))
        again = sum(row < self.size for row in new)
        self.free = self.free[again:]
        self.size += len(new) - again
        self.count += len(new) - len(gone)
        self._alive[leave], self._alive[come] = False, True

    def fill(self, x: Tensor, ids: Column, columns: dict[str, Column], own: Tensor, reuse: bool) -> None:
        r"""Takes all rows at once, of which ``own`` are someone's; whether others may be given away is ``reuse``."""
        self.write(self.reserve(len(x)), x, ids, columns)
        self.size, self.count = len(x), len(own)
        self._alive[own] = True
        self.position = dict(zip(ids[own.numpy()].tolist(), own.tolist(), strict=True))
        self.free = (~self._alive[: self.size]).nonzero().view(-1).tolist() if reuse else []

    def value_marks(self, name: str) -> Marks:
        r"""Returns which rows have each value of a column; from the first time on they are kept up to date."""
        if name not in self._marks:
            rows = self._alive[: self.size].nonzero().view(-1).tolist()
            self._marks[name] = value_marks(self._objects[name], rows)
        return self._marks[name]

    def snapshot(self) -> Rows:
        n = self.size
        columns = {name: self._objects[name][:n] for name in self.columns}
        alive = self._alive[:n].clone()
        return Rows(self._x[:n], self._length[:n], self._objects[None][:n], columns, alive, self.count)

    @property
    def lost(self) -> float:
        r"""The share of rows that are nobody's."""
        return 1 - self.count / self.size if self.size else 0.0

    def _grow(self, room: int) -> None:
        n, more = self.size, room - len(self._x)
        x = torch.empty(room, self._x.size(1))
        x[:n] = self._x[:n]
        self._x = x
        self._length = torch.cat([self._length, torch.empty(more)])
        self._alive = torch.cat([self._alive, torch.zeros(more, dtype=torch.bool)])
        fill = np.empty(more, dtype=object)
        self._objects = {name: np.concatenate([values, fill]) for name, values in self._objects.items()}


def lengths(x: Tensor) -> Tensor:
    r"""Returns the Euclidean length of each row, of tiny numbers, too."""
    out = torch.empty(len(x))
    for start in range(0, len(x), CHUNK):
        part = x[start : start + CHUNK]
        largest = part.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float).tiny)
        out[start : start + CHUNK] = (part / largest).norm(dim=1) * largest.view(-1)
    return out
