r"""Users, items and what was seen, with the index of the items: one changes them, others read."""

import threading
import weakref
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lirdrec_pyg.serving import _seen
from lirdrec_pyg.serving._columns import Column, as_column
from lirdrec_pyg.serving._index import Index, as_rows
from lirdrec_pyg.serving._state import CHUNK, Rows, State, Table
from lirdrec_pyg.serving.recommend import lookup, plain_ids
from lirdrec_pyg.typing import ITEM, USER, Embeddings, check_embeddings, check_pairs, check_rows, check_scores

NONE = torch.empty(0, dtype=torch.long)


class Content(NamedTuple):
    r"""All that a catalogue holds, row by row, to be written or copied.

    Args:
        x (dict): The embeddings of users and of items, one for each row.
        ids (dict): The raw id of each row, :obj:`None` where it is nobody's.
        columns (dict): The columns of items.
        seen (Tensor): Pairs of a row of users and one of items.
        stale (list of int): Rows of items that are nobody's and that the index still holds, though it can forget.
    """

    x: dict[str, Tensor]
    ids: dict[str, list[Any]]
    columns: dict[str, Column]
    seen: Tensor
    stale: list[int]


class Catalogue:
    r"""What a :class:`~lirdrec_pyg.serving.Retriever` serves, one :class:`State` after another.

    One thread at a time may change it. Whoever reads holds a state, which stays as it is for as long as it is held.
    Changes write to rows that no state has. The index is changed in place, so it forgets a row only when every state
    that has it is gone; until then, as in an index that never forgets, the row is masked.

    Args:
        width (int): The number of columns of the embeddings.
        columns (sequence of str): The names of the columns of items.
        rebuild (float): The share of rows that may be nobody's.
    """

    def __init__(self, width: int, columns: Sequence[str], rebuild: float) -> None:
        self.rebuild = rebuild
        self.width = width
        self.tables = {USER: Table(width), ITEM: Table(width, columns)}
        self.dirty: dict[str, set[int]] | None = None  # rows changed since a base was saved, histories as 'seen'
        self._moment = threading.Lock()  # held while ids and filters change, or are looked up
        self._older: deque[weakref.ref[State]] = deque()  # states before this one that are held, and some that are not
        self._gone = 0  # how many states before these are held no more
        self._dying: list[tuple[int, str, Tensor]] = []  # by which state, and of which kind, the rows are had last
        self.state = self._made(torch.zeros(1, dtype=torch.long), NONE, None)

    @contextmanager
    def look(self) -> Iterator[State]:
        r"""Gives a state, whose ids and filters :attr:`tables` has as long as the block runs."""
        with self._moment:
            yield self.state

    # Changes: one at a time --------------------------------------------------------------------------------------

    def add(self, kind: str, embeddings: Any, ids: Any, columns: dict[str, Column]) -> None:
        self._mend()
        values = self._new_ids(kind, ids)
        x = self._checked(kind, embeddings, len(values))
        self._change(kind, NONE, x, values, columns)

    def update(self, kind: str, embeddings: Any, ids: Any, columns: dict[str, Column]) -> None:
        self._mend()
        leave = self._unique(kind, ids)
        rows = self.state.rows(kind)
        x = rows.x[leave] if embeddings is None else self._checked(kind, embeddings, len(leave))
        kept = {name: values[leave.numpy()] for name, values in rows.columns.items()}
        own = rows.ids[leave.numpy()]
        del rows
        self._change(kind, leave, x, own, kept | columns)

    def remove(self, kind: str, ids: Any) -> None:
        self._mend()
        self._change(kind, self._unique(kind, ids), torch.empty(0, self.width), [], {})

    def see(self, users: Any, items: Any) -> None:
        key = self._pairs(users, items)
        if self.dirty is not None:
            self.dirty['seen'].update((key >> _seen.BITS).tolist())
        self._set_seen(_seen.insert(self.state.key, key))

    def forget(self, users: Any, items: Any) -> None:
        key = self._pairs(users, items).unique()
        there = _seen.have(self.state.key, key)
        if not bool(there.all()):
            user, item = (int(row) for row in _seen.pairs(key[~there])[:, 0])
            raise ValueError(
                f"pairs of 'users' and 'items' need to be seen (got {int((~there).sum())} that are not, first: user "
                f'{self.state.user.ids[user]!r}, item {self.state.item.ids[item]!r})'
            )
        if self.dirty is not None:
            self.dirty['seen'].update((key >> _seen.BITS).tolist())
        self._set_seen(self.state.key[~_seen.have(key, self.state.key)])

    def set_seen(self, pairs: Tensor) -> None:
        r"""Sets what was seen by row numbers."""
        self._set_seen(_seen.keys(*pairs).unique())

    def set_index(self, index: Index | None) -> None:
        self._swap(self._made(self.state.ptr, self.state.key, index))

    def compact(self, kind: str) -> None:
        r"""Moves all rows of a kind together and makes the index anew. Searches go on meanwhile."""
        state = self.state
        rows = state.rows(kind)
        keep = rows.alive.nonzero().view(-1)
        table = Table(self.width, self.tables[kind].columns, room=len(keep) + max(len(keep) // 8, 64))
        new = table.reserve(len(keep))
        for part, own in zip(new.split(CHUNK), keep.split(CHUNK), strict=True) if len(new) else ():
            columns = {name: values[own.numpy()] for name, values in rows.columns.items()}
            table.write(part, rows.x[own], rows.ids[own.numpy()], columns)
        table.commit(new, NONE)
        index = state.index
        if kind == ITEM and index is not None:
            index = index.emptied()
            index.add(table.snapshot().x, new)
        place = torch.full((max(len(rows.ids), 1),), -1)
        place[keep] = new
        user, item = _seen.pairs(state.key)
        key = _seen.keys(*((place[user], item) if kind == USER else (user, place[item])))  # still sorted
        self.dirty = None
        with self._moment:
            self.tables = self.tables | {kind: table}
            self._swap(self._made(_seen.starts(key, self.tables[USER].size), key, index))
            self._dying = [one for one in self._dying if one[1] != kind]

    def settle(self) -> None:
        r"""Forgets the rows that no state has any more, so that others may take them."""
        while self._older and self._older[0]() is None:
            self._older.popleft()
            self._gone += 1
        while self._dying and self._dying[0][0] < self._gone:
            _, kind, rows = self._dying.pop(0)
            index = self.state.index if kind == ITEM else None
            if index is None or index.forgets:
                if index is not None:
                    index.remove(rows)
                self.tables[kind].free.extend(rows.tolist())

    def _change(
        self, kind: str, leave: Tensor, x: Tensor, ids: Sequence[Any] | Column, columns: dict[str, Column]
    ) -> None:
        r"""Lets rows leave and others come; if both are as many, one takes the place of the other."""
        if len(leave) == len(ids) == 0:
            return
        index, table = self.state.index if kind == ITEM else None, self.tables[kind]
        come = table.reserve(len(ids))
        table.write(come, x, ids, columns)
        if index is not None and len(come):
            index.add(x, come)
        key, users = self._moved(kind, leave, come)
        if self.dirty is not None:
            self.dirty[kind].update(leave.tolist(), come.tolist())
            self.dirty['seen'].update(users.tolist())
        with self._moment:
            table.commit(come, leave)
            if len(leave):
                self._dying.append((self._gone + len(self._older), kind, leave))
            self._swap(self._made(_seen.starts(key, self.tables[USER].size), key, self.state.index))
        self.settle()
        if table.lost > self.rebuild:
            self.compact(kind)

    def _moved(self, kind: str, leave: Tensor, come: Tensor) -> tuple[Tensor, Tensor]:
        r"""Returns what is seen when rows leave, and the users whose histories have other items then."""
        key = self.state.key
        if len(leave) == 0 or len(key) == 0:
            return key, NONE
        rows = key >> _seen.BITS if kind == USER else _seen.items(key)
        gone = _seen.among(rows, leave)
        own = key[gone]
        key = key[~gone]
        if len(come) == 0:
            return key, NONE
        place = torch.full((int(leave.max()) + 1,), -1)
        place[leave] = come
        user, item = _seen.pairs(own)
        user, item = (place[user], item) if kind == USER else (user, place[item])
        return _seen.insert(key, _seen.keys(user, item)), user.unique()

    def _set_seen(self, key: Tensor) -> None:
        self._swap(self._made(_seen.starts(key, self.tables[USER].size), key, self.state.index))
        self.settle()

    def _swap(self, state: State) -> None:
        self._older.append(weakref.ref(self.state))
        self.state = state

    def _made(self, ptr: Tensor, key: Tensor, index: Index | None) -> State:
        return State(self.tables[USER].snapshot(), self.tables[ITEM].snapshot(), ptr, key, index)

    # Checks ------------------------------------------------------------------------------------------------------

    def _checked(self, kind: str, embeddings: Any, count: int) -> Tensor:
        r"""Returns embeddings that go with those that are there."""
        x = embeddings.float() if isinstance(embeddings, Tensor) else embeddings  # too large a number becomes infinite
        x = check_rows(x, kind).detach().cpu().float()
        if x.size(1) != self.width:
            raise ValueError(f"'embeddings' need to have {self.width} columns (got {tuple(x.shape)})")
        if len(x) != count:
            raise ValueError(f'{kind} ids need to be as many as embeddings, {len(x)} (got {count})')
        if len(x):
            for other in [self.state.item, self.state.user] if kind == ITEM else [self.state.item]:
                if other.num_alive:
                    longest = int((other.length * other.alive).argmax())
                    check_scores(x, other.x[longest : longest + 1])
            if kind == ITEM:
                check_scores(x, x)
        return x

    def _new_ids(self, kind: str, ids: Any) -> list[Any]:
        values, position = plain_ids(ids), self.tables[kind].position
        count = Counter(values)
        again = next((raw for raw in values if count[raw] > 1 or raw in position), None)
        if again is not None or None in count:
            raise ValueError(f'{kind} ids need to be new and unique (got {again!r} again)')
        return values

    def _mend(self) -> None:
        r"""Makes an index anew that a change which was cut off has left with rows that nobody has."""
        index = self.state.index
        if index is not None and not index.forgets and index.faiss.ntotal != self.tables[ITEM].size:
            del index
            self.compact(ITEM)

    def _unique(self, kind: str, ids: Any) -> Tensor:
        rows = lookup(kind, self.tables[kind].position, ids)
        if len(rows.unique()) < len(rows):
            count = Counter(rows.tolist())
            again = next(i for i, row in enumerate(rows.tolist()) if count[row] > 1)
            raise ValueError(f'{kind} ids need to be unique (got {plain_ids(ids)[again]!r} again)')
        return rows

    def _pairs(self, users: Any, items: Any) -> Tensor:
        rows = [lookup(kind, self.tables[kind].position, ids) for kind, ids in ((USER, users), (ITEM, items))]
        if len(rows[0]) != len(rows[1]):
            raise ValueError(f"'items' need to be as many as 'users', {len(rows[0])} (got {len(rows[1])})")
        return _seen.keys(*rows)

    # As a whole --------------------------------------------------------------------------------------------------

    def content(self) -> Content:
        self.settle()
        state = self.state
        index = state.index
        stale = [row for _, kind, rows in self._dying if kind == ITEM for row in rows.tolist()]
        return Content(
            {kind: state.rows(kind).x for kind in (USER, ITEM)},
            {kind: ids_of(state.rows(kind)) for kind in (USER, ITEM)},
            state.item.columns,
            _seen.pairs(state.key),
            stale if index is not None and index.forgets else [],
        )

    @classmethod
    def of(cls, content: Content, index: Index | None, rebuild: float) -> 'Catalogue':
        r"""Returns a catalogue that holds the content, row by row.

        Raises:
            ValueError: If its parts do not go together.
        """
        check_sizes(content)
        check_embeddings(Embeddings(content.x[USER], content.x[ITEM]))
        out = cls(content.x[ITEM].size(1), list(content.columns), rebuild)
        for kind, table in out.tables.items():
            x, ids = content.x[kind], content.ids[kind]
            own = as_rows([row for row, raw in enumerate(ids) if raw is not None])
            named = as_column(ids)[own.numpy()]
            if len(set(named.tolist())) < len(own):
                raise ValueError(f'{kind} ids need to be unique')
            reuse = kind == USER or index is None or index.forgets
            table.fill(x, as_column(ids), content.columns if kind == ITEM else {}, own, reuse)
        if index is not None and index.forgets:
            index.remove(as_rows(content.stale))
        pairs = check_pairs(content.seen, (len(content.x[USER]), len(content.x[ITEM])), 'seen')
        key = _seen.keys(*pairs).unique()
        out.state = out._made(_seen.starts(key, out.tables[USER].size), key, index)
        return out


def check_sizes(content: Content) -> None:
    r"""Raises a :class:`ValueError` if there are not as many ids as embeddings, and as many values of each column."""
    for kind, x in content.x.items():
        if len(content.ids[kind]) != len(x):
            raise ValueError(f'{kind} ids need to be as many as embeddings, {len(x)} (got {len(content.ids[kind])})')
    for name, column in content.columns.items():
        if len(column) != len(content.x[ITEM]):
            raise ValueError(
                f"column '{name}' needs one value for each item, {len(content.x[ITEM])} (got {len(column)})"
            )


def ids_of(rows: Rows) -> list[Any]:
    r"""Returns the raw id of each row, :obj:`None` where it is nobody's."""
    ids = rows.ids.copy()
    ids[~rows.alive.numpy()] = None
    return ids.tolist()  # type: ignore[no-any-return]
