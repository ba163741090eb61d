import operator
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from lirdrec_pyg._io import file_digest
from lirdrec_pyg._segments import take_rows
from lirdrec_pyg.serving import _store
from lirdrec_pyg.serving._catalogue import Catalogue
from lirdrec_pyg.serving._columns import check_columns, matches
from lirdrec_pyg.serving._index import Index
from lirdrec_pyg.serving._search import TINY, diversify, probe, reasons, scan
from lirdrec_pyg.serving._state import State
from lirdrec_pyg.serving.recommend import lookup
from lirdrec_pyg.transforms.item_knn_graph import faiss_index
from lirdrec_pyg.typing import (
    INTERACTS,
    ITEM,
    USER,
    Embeddings,
    check,
    check_count,
    check_embeddings,
    check_pairs,
)

if TYPE_CHECKING:
    import pandas as pd

POOL = 5  # times k candidates, of which `diversity` chooses
REASONS = 3  # items of a user that explain another
Ids = Sequence[str] | Sequence[int]
Columns = Mapping[str, Sequence[Any]]  # or a DataFrame


class Retriever:
    r"""Serves embeddings: the best items for a user and the most similar ones to an item, with raw ids in and out.
    Users and items join it, change in it and leave it while it serves.

    **Search.** The index ``'Flat'`` scans all items and is exact. Any other `FAISS factory string
    <https://github.com/facebookresearch/faiss/wiki/The-index-factory>`_ makes an approximate index. It is asked for
    more than ``k`` items, since those that the user has seen and those that filters exclude are then left out. The rest
    is ranked by exact scores. If less than ``k`` items are left, all items are scanned for this user. So whatever the
    index, a result holds no excluded item, its scores are exact, and it has ``k`` items where there are as many. Only
    whether they are the best ones is approximate.

    **Changes.** None needs a rebuild, and each costs time by what changes, apart from a few passes over what was seen.
    ``'Flat'`` and inverted files (``'IVF…'``) give the place of what leaves to what comes. Any other index, such as
    HNSW, can't forget: what leaves it, or is updated, is masked out of the results. When the share of places that are
    nobody's is past ``rebuild``, they are given up: the embeddings move together, which for a moment takes their memory
    twice, and the index is made anew, which for HNSW takes as long as it took at first. Searches go on meanwhile.

    **Threads.** Any number of threads may search while one changes; the changes of several wait for one another. A
    search takes the state of one moment and sees all of a change or nothing of it, since changes write where no state
    has a row: a place is given away only when all searches that may know it are done. Nobody waits, but for the index,
    which takes in about a thousand items at a time.

    .. code-block:: python

        retriever = Retriever.from_model(model, train)
        print(retriever.recommend(['user-0'], k=3, blocked=['item-4'], explain=True))
        print(retriever.similar_items(['item-0'], k=3))

        retriever.add_items(embeddings.item[:1], ['item-new'], {'title': ['a new item']})
        retriever.add_users(embeddings.user[:1], ['anna'])
        retriever.add_seen(['anna'], ['item-new'])
        retriever.update_items(None, ['item-new'], {'title': ['a red cup']})
        retriever.update_users(embeddings.user[1:2], ['anna'])
        retriever.remove_seen(['anna'], ['item-new'])
        retriever.remove_items(['item-new', 'item-3'])
        retriever.remove_users(['anna'])

        retriever.save('shop')
        retriever = Retriever.load('shop')  # in another process
        retriever.configure(oversample=2)
        print(retriever.num_users, retriever.num_items, retriever.columns)

    Args:
        embeddings (Embeddings): The embeddings of all users and items.
        seen (HeteroData or Tensor, optional): A split whose ``edge_index`` holds what users have seen, or such pairs of
            node ids :math:`(2, |\mathcal{E}|)`. (default: nothing)
        user_ids (sequence, optional): The raw ids of the users. (default: those of ``seen``, else ``0, 1, …``)
        item_ids (sequence, optional): The same for items.
        items (DataFrame or mapping, optional): What else is known of the items, in their order: columns of texts,
            numbers, truths, or lists of them. They stand in the tables of results, and ``where`` filters by them.
            (default: the ``title`` of ``seen``, if there is one)
        index (str, optional): ``'Flat'`` or, *e.g.*, ``'HNSW32'`` or ``'IVF1024,PQ48np'`` (without ``np``, training a
            product quantiser takes minutes for what is not used here). (default: ``'Flat'``)
        ef_search (int, optional): How many candidates an HNSW index keeps in a search. (default: FAISS's)
        nprobe (int, optional): How many lists an IVF index scans in a search. (default: FAISS's)
        oversample (int, optional): How many times ``k`` items an approximate index is asked for, before they are ranked
            exactly; of use to compressed ones (PQ). (default: :obj:`1`)
        rebuild (float, optional): The share of places that may be nobody's. (default: :obj:`0.25`)
        views (mapping of str to int, optional): The names of the views that the columns of the embeddings are of, in
            their order, and the number of columns of each, for ``explain``. (default: none)

    Raises:
        TypeError: If there are no embeddings, or ``seen`` is something else.
        ValueError: If embeddings are not finite, ids, ``seen``, ``items`` or ``views`` do not fit them, an id is
            repeated, or the index knows no such setting.
    """

    def __init__(
        self,
        embeddings: Embeddings,
        seen: HeteroData | Tensor | None = None,
        *,
        user_ids: Ids | None = None,
        item_ids: Ids | None = None,
        items: 'Columns | pd.DataFrame | None' = None,
        index: str = 'Flat',
        ef_search: int | None = None,
        nprobe: int | None = None,
        oversample: int = 1,
        rebuild: float = 0.25,
        views: Mapping[str, int] | None = None,
    ) -> None:
        embeddings = check_embeddings(embeddings)
        num_users, num_items = len(embeddings.user), len(embeddings.item)
        if not (seen is None or isinstance(seen, (HeteroData, Tensor, np.ndarray))):
            raise TypeError(
                f"'seen' needs to be a HeteroData or pairs of shape [2, E] (got {type(seen).__name__}): give raw ids "
                'as `user_ids=` and `item_ids=`'
            )
        if not 0 < rebuild < 1:
            raise ValueError(f"'rebuild' needs to be in (0, 1) (got {rebuild})")
        pairs: Any = torch.empty(2, 0, dtype=torch.long) if seen is None else seen
        if isinstance(seen, HeteroData):
            data = check(seen, 'seen')
            check_embeddings(embeddings, data)
            user_ids = data[USER].get('raw_id') if user_ids is None else user_ids
            item_ids = data[ITEM].get('raw_id') if item_ids is None else item_ids
            items = {'title': data[ITEM].title} if items is None and 'title' in data[ITEM] else items
            pairs = data[INTERACTS].edge_index
        columns = check_columns(items, num_items)
        width = embeddings.item.size(1)
        self.index = index
        self.settings: dict[str, Any] = {'ef_search': None, 'nprobe': None, 'oversample': 1}
        self.checkpoint: dict[str, str] | None = None
        self.views = _check_views(views, width)
        self._base: _store.Base | None = None
        self._changes = threading.RLock()  # one change or save at a time
        self._catalogue = Catalogue(width, list(columns), rebuild)
        self._catalogue.add(USER, embeddings.user, range(num_users) if user_ids is None else user_ids, {})
        self._catalogue.add(ITEM, embeddings.item, range(num_items) if item_ids is None else item_ids, columns)
        self._catalogue.set_seen(check_pairs(pairs, (num_users, num_items), 'seen').cpu())
        if index != 'Flat':
            self._catalogue.set_index(Index(faiss_index(self._state.item.x.numpy(), index)))
        self.configure(ef_search, nprobe, oversample)

    @classmethod
    def from_model(cls, model: torch.nn.Module, data: HeteroData, **kwargs: Any) -> Self:
        r"""Returns a retriever of what a model makes of data: its embeddings, and the ids, titles and interactions of
        the data. Of a model such as :class:`~lirdrec_pyg.nn.LIRDRec` it takes the names of the views, too.

        Args:
            model (Recommender): The model. It is as it was afterwards.
            data (HeteroData): The training split that the model is called with.
            **kwargs (optional): Other arguments of the class.
        """
        training = model.training
        model.eval()
        try:
            with torch.no_grad():
                embeddings = model(data)
        finally:
            model.train(training)
        names = [*getattr(model, 'in_channels', {}), 'shared']
        if 'views' not in kwargs and getattr(model, 'num_views', 0) == len(names):
            kwargs['views'] = dict.fromkeys(names, embeddings.item.size(1) // len(names))
        return cls(embeddings, data, **kwargs)

    def configure(self, ef_search: int | None = None, nprobe: int | None = None, oversample: int | None = None) -> None:
        r"""Changes the settings of the search that are given; see the arguments of the class."""
        given = {'ef_search': ef_search, 'nprobe': nprobe, 'oversample': oversample}
        for name, value in given.items():
            if value is not None and operator.index(value) < 1:
                raise ValueError(f"'{name}' needs to be positive (got {value})")
        with self._changes:
            for name, key, value in [('ef_search', 'efSearch', ef_search), ('nprobe', 'nprobe', nprobe)]:
                if value is not None:
                    made = self._state.index
                    try:
                        if made is None:
                            raise TypeError
                        made.configure(key, value)
                    except (RuntimeError, TypeError) as error:
                        raise ValueError(f"the index '{self.index}' has no setting '{name}'") from error
            self.settings = self.settings | {name: value for name, value in given.items() if value is not None}

    @property
    def num_users(self) -> int:
        return self._state.user.num_alive

    @property
    def num_items(self) -> int:
        return self._state.item.num_alive

    @property
    def columns(self) -> list[str]:
        r"""The names of the columns of items."""
        return list(self._state.item.columns)

    # Searches ------------------------------------------------------------------------------------------------------

    def recommend(
        self,
        users: Ids,
        k: int = 10,
        exclude_seen: bool = True,
        allowed: Ids | None = None,
        blocked: Ids | None = None,
        where: Mapping[str, Any] | None = None,
        diversity: float = 0.0,
        explain: bool = False,
    ) -> 'pd.DataFrame':
        r"""Returns the best items for the given users.

        Args:
            users (sequence): Their raw ids.
            k (int, optional): The number of items a user. A user with less than ``k`` items left gets fewer rows.
                (default: :obj:`10`)
            exclude_seen (bool, optional): Leave out what the user has seen. (default: :obj:`True`)
            allowed (sequence, optional): The raw ids of the only items to recommend. (default: all)
            blocked (sequence, optional): The raw ids of items not to recommend. (default: none)
            where (mapping, optional): The only values of columns to recommend, one or a list for each column, as in
                ``{'category': ['shoes', 'bags']}``. An item needs one of the values in each of the columns; of a list
                in a column, one member counts. (default: any)
            diversity (float, optional): How much :math:`\lambda \in [0, 1)` it counts that items differ from those
                ranked before them, by cosine: maximal marginal relevance among the best :math:`5k` items. Ranks then
                are not in the order of the scores. (default: :obj:`0.0`)
            explain (bool, optional): Say why: ``because`` are the raw ids of up to three items that the user has seen
                and that are nearest to this one by cosine, ``because_title`` their titles, where known. If the
                retriever has ``views``, ``score[<view>]`` is the share of each: they add up to the score.
                (default: :obj:`False`)

        Returns:
            A table with the columns ``user``, ``rank`` (from 1), ``item``, those of the items, and ``score``, in the
            order of ``users``.

        Raises:
            ValueError: If ``k`` or ``diversity`` is out of range, or an id or a column is unknown.
        """
        if not 0 <= diversity < 1:
            raise ValueError(f"'diversity' needs to be in [0, 1) (got {diversity})")
        with self._catalogue.look() as state:
            rows = lookup(USER, self._catalogue.tables[USER].position, users)
            mask = self._mask(state, allowed, blocked, where)
        k = check_count(k, state.item.num_alive)
        own_ptr, key = take_rows(state.ptr, state.key, rows)
        own = key & (1 << 32) - 1
        ptr, col = (own_ptr, own) if exclude_seen else (torch.zeros_like(own_ptr), own[:0])
        query = state.user.x[rows]
        wide = min(POOL * k, state.item.num_alive) if diversity > 0 else k
        score, item = self._found(state, query, wide, ptr, col, mask, 'inner')
        if diversity > 0 and len(rows):
            score, item = diversify(state.item, score, item, k, diversity)
        more = None
        if explain:
            keep = score > float('-inf')
            more = self._explained(state, rows, keep.nonzero()[:, 0], item[keep], own_ptr, own)
        return _table(state, USER, rows, ITEM, score, item, more)

    def similar_items(
        self,
        items: Ids,
        k: int = 10,
        allowed: Ids | None = None,
        blocked: Ids | None = None,
        where: Mapping[str, Any] | None = None,
        metric: str = 'cosine',
    ) -> 'pd.DataFrame':
        r"""Returns the items that are most like the given ones. The item itself is left out.

        Args:
            items (sequence): Their raw ids.
            k (int, optional): The number of similar items each. (default: :obj:`10`)
            allowed (sequence, optional): The raw ids of the only items to return. (default: all)
            blocked (sequence, optional): The raw ids of items not to return. (default: none)
            where (mapping, optional): The only values of columns to return; see :meth:`recommend`. (default: any)
            metric (str, optional): ``'cosine'`` or ``'inner'``. By inner product, items with long embeddings are
                similar to everything. By cosine all items are scanned whatever the index, which takes as long as
                ``'Flat'`` does. (default: ``'cosine'``)

        Returns:
            A table with the columns ``item``, ``rank`` (from 1), ``similar``, those of the similar item, and ``score``.

        Raises:
            ValueError: If ``k`` or ``metric`` is out of range, or an id or a column is unknown.
        """
        if metric not in ('cosine', 'inner'):
            raise ValueError(f"'metric' needs to be 'cosine' or 'inner' (got {metric!r})")
        with self._catalogue.look() as state:
            rows = lookup(ITEM, self._catalogue.tables[ITEM].position, items)
            mask = self._mask(state, allowed, blocked, where)
        k = check_count(k, state.item.num_alive)
        query = state.item.x[rows]
        if metric == 'cosine':
            query = query / state.item.length[rows].clamp_min(TINY).unsqueeze(1)
        score, item = self._found(state, query, k, torch.arange(len(rows) + 1), rows, mask, metric)
        return _table(state, ITEM, rows, 'similar', score, item)

    # Changes -------------------------------------------------------------------------------------------------------

    def add_items(self, embeddings: Tensor, ids: Ids, items: 'Columns | pd.DataFrame | None' = None) -> None:
        r"""Adds new items.

        Args:
            embeddings (Tensor): Their embeddings :math:`(N, D)`.
            ids (sequence): Their raw ids.
            items (DataFrame or mapping, optional): What else is known of them. A column that is not given is
                :obj:`None`.

        Raises:
            ValueError: If an id is not new, or embeddings or columns do not fit.
        """
        with self._changes:
            self._catalogue.add(ITEM, embeddings, ids, self._columns(items, ids))

    def update_items(self, embeddings: Tensor | None, ids: Ids, items: 'Columns | pd.DataFrame | None' = None) -> None:
        r"""Changes items. Who has seen them still has.

        Args:
            embeddings (Tensor, optional): Their embeddings :math:`(N, D)`, or :obj:`None` if these stay.
            ids (sequence): Their raw ids.
            items (DataFrame or mapping, optional): What else is known of them. A column that is not given stays.

        Raises:
            ValueError: If an id is unknown or repeated, or embeddings or columns do not fit.
        """
        with self._changes:
            self._catalogue.update(ITEM, embeddings, ids, self._columns(items, ids))

    def remove_items(self, ids: Ids) -> None:
        r"""Removes items, and with them that users have seen them. An item that comes back is a new one. What is only
        sold out for a while can be ``blocked`` in :meth:`recommend`.

        Raises:
            ValueError: If an id is unknown or repeated.
        """
        with self._changes:
            self._catalogue.remove(ITEM, ids)

    def add_users(self, embeddings: Tensor, ids: Ids) -> None:
        r"""Adds new users, who have seen nothing yet; see :meth:`add_items`."""
        with self._changes:
            self._catalogue.add(USER, embeddings, ids, {})

    def update_users(self, embeddings: Tensor, ids: Ids) -> None:
        r"""Changes the embeddings of users, who have seen what they had; see :meth:`update_items`."""
        with self._changes:
            self._catalogue.update(USER, embeddings, ids, {})

    def remove_users(self, ids: Ids) -> None:
        r"""Removes users and what they have seen; see :meth:`remove_items`."""
        with self._changes:
            self._catalogue.remove(USER, ids)

    def add_seen(self, users: Ids, items: Ids) -> None:
        r"""Adds pairs of what users have seen. A pair that is there stays.

        Args:
            users (sequence): The raw id of the user of each pair.
            items (sequence): The raw id of its item.

        Raises:
            ValueError: If an id is unknown.
        """
        with self._changes:
            self._catalogue.see(users, items)

    def remove_seen(self, users: Ids, items: Ids) -> None:
        r"""Removes pairs of what users have seen; see :meth:`add_seen`.

        Raises:
            ValueError: If an id is unknown, or a pair is not there.
        """
        with self._changes:
            self._catalogue.forget(users, items)

    # Files ---------------------------------------------------------------------------------------------------------

    def save(
        self,
        folder: str | os.PathLike[str],
        checkpoint: str | os.PathLike[str] | None = None,
        whole: bool = False,
    ) -> None:
        r"""Writes a folder that :meth:`load` reads. Until its ``manifest.json``, which names all other files, is
        replaced in the end, what was in the folder stays whole. What was saved before stays, too, for those who are
        reading it, until the save after this one. Saves into one folder wait for one another, and so do changes.

        The first save writes everything. Later ones into the same folder write the rows that have changed since, beside
        what is there. When those are a tenth of all, when places were given up (see ``rebuild``), or when somebody else
        has written to the folder, everything is written again. A line of the log says what was written and how much.

        Args:
            folder (path): The folder.
            checkpoint (path, optional): The file of the model that made the embeddings, to be referred to by name and
                checksum.
            whole (bool, optional): Write everything. (default: :obj:`False`)

        Raises:
            OSError: If there is no room or no right to write. What was in the folder is whole.
        """
        folder = Path(folder)
        with self._changes:
            made_by = self.checkpoint
            if checkpoint is not None:
                made_by = {'name': Path(checkpoint).name, 'sha256': file_digest(Path(checkpoint))}
            about = {
                'index': self.index,
                'settings': self.settings,
                'rebuild': self._catalogue.rebuild,
                'num_users': self.num_users,
                'num_items': self.num_items,
                'columns': self.columns,
                'views': self.views,
                'checkpoint': made_by,
            }
            self._base = _store.save(folder, self._catalogue, about, self._base, whole)
            self.checkpoint = made_by

    @classmethod
    def load(cls, folder: str | os.PathLike[str], checkpoint: str | os.PathLike[str] | None = None) -> Self:
        r"""Returns the retriever that :meth:`save` wrote. During a save it reads what was there before or what is there
        then. An index that can't forget takes in again what was added since all was written.

        Args:
            folder (path): The folder.
            checkpoint (path, optional): The file of the model to be used beside it, which has to be the one that made
                the embeddings.

        Raises:
            FileNotFoundError: If there is no such folder.
            ValueError: If the folder is not whole, of another format, or of another model than ``checkpoint``.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder '{folder}'")
        while True:
            manifest = _store.manifest_of(folder)
            try:
                return cls._read(folder, manifest, checkpoint)
            except (OSError, ValueError):
                if _store.manifest_of(folder) == manifest:  # else there were two saves meanwhile
                    raise

    @classmethod
    def _read(cls, folder: Path, manifest: dict[str, Any], checkpoint: str | os.PathLike[str] | None) -> Self:
        about, content, index, base, dirty = _store.load(folder, manifest)
        made_by = about['checkpoint']
        if checkpoint is not None and file_digest(Path(checkpoint)) != (made_by or {}).get('sha256'):
            raise ValueError(f"'{folder}' is of another model than '{checkpoint}' (got {made_by})")
        width = content.x[ITEM].size(1)
        out = cls(Embeddings(torch.empty(0, width), torch.empty(0, width)), views=about.get('views'))
        out._catalogue = Catalogue.of(content, index, about.get('rebuild', out._catalogue.rebuild))
        out._catalogue.dirty = dirty
        out.index, out.checkpoint, out._base = about['index'], made_by, base
        out.configure(**about['settings'])
        return out

    def __getstate__(self) -> dict[str, Any]:
        with self._changes:
            content, index = self._catalogue.content(), self._state.index
            copied = content._replace(
                x={kind: x.clone() for kind, x in content.x.items()},
                columns={name: column.copy() for name, column in content.columns.items()},
            )
            made = None if index is None else index.to_bytes()
            own = {'_catalogue': (copied, made, self._catalogue.rebuild), '_changes': None, '_base': None}
            return self.__dict__ | own

    def __setstate__(self, state: dict[str, Any]) -> None:
        content, made, rebuild = state['_catalogue']
        index = None if made is None else Index.from_bytes(made)
        self.__dict__.update(
            state | {'_catalogue': Catalogue.of(content, index, rebuild), '_changes': threading.RLock()}
        )

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self.num_users}, {self.num_items}, index='{self.index}')"

    # Parts ---------------------------------------------------------------------------------------------------------

    @property
    def _state(self) -> State:
        return self._catalogue.state

    def _columns(self, items: Any, ids: Any) -> dict[str, Any]:
        return check_columns(items, len(ids), self.columns) if items is not None else {}

    def _mask(
        self, state: State, allowed: Ids | None, blocked: Ids | None, where: Mapping[str, Any] | None
    ) -> Tensor | None:
        r"""Returns which rows may be found, nothing where all may."""
        if where is not None and not isinstance(where, Mapping):
            raise TypeError(f"'where' needs to be a mapping of columns to values (got {type(where).__name__})")
        if allowed is None and blocked is None and not where:
            return None if state.item.full else state.item.alive
        table = self._catalogue.tables[ITEM]
        mask = state.item.alive.clone()
        if allowed is not None:
            only = torch.zeros_like(mask)
            only[lookup(ITEM, table.position, allowed)] = True
            mask &= only
        if blocked is not None:
            mask[lookup(ITEM, table.position, blocked)] = False
        for name, wanted in (where or {}).items():
            if name not in table.columns:
                raise ValueError(f"'where' needs columns among {table.columns} (got {name!r})")
            mask &= matches(table.value_marks(name), name, wanted, len(mask))
        return mask

    def _found(
        self, state: State, query: Tensor, k: int, ptr: Tensor, col: Tensor, mask: Tensor | None, metric: str
    ) -> tuple[Tensor, Tensor]:
        r"""Returns the scores and the rows of the best items."""
        if state.index is None or metric == 'cosine':
            search = scan(state, query, k, ptr, col, mask, metric == 'cosine')
        else:
            search = probe(state, query, k, ptr, col, mask, self.settings['oversample'])
        parts = list(search)
        if not parts:
            return torch.empty(0, k), torch.empty(0, k, dtype=torch.long)
        order, score, item = map(torch.cat, zip(*parts, strict=True))
        order = order.argsort()  # the searches may take the rows in another order
        return score[order], item[order]

    def _explained(
        self, state: State, rows: Tensor, row: Tensor, item: Tensor, ptr: Tensor, col: Tensor
    ) -> dict[str, Any]:
        r"""Returns the columns that say why ``item`` is recommended to ``rows[row]``."""
        out: dict[str, Any] = {}
        start = 0
        for name, width in self.views.items():
            part = slice(start, start + width)
            pair = state.user.x[rows[row], part].double(), state.item.x[item, part].double()
            out[f'score[{name}]'] = (pair[0] * pair[1]).sum(dim=1).numpy()
            start += width
        own = reasons(state.item, item, row, ptr, col, REASONS)
        out['because'] = [state.item.ids[some].tolist() for some in own]
        if 'title' in state.item.columns:
            out['because_title'] = [state.item.columns['title'][some].tolist() for some in own]
        return out


def _table(
    state: State, kind: str, rows: Tensor, name: str, score: Tensor, item: Tensor, more: dict[str, Any] | None = None
) -> 'pd.DataFrame':
    import pandas as pd

    keep = score > float('-inf')
    found = item[keep].numpy()
    rank = torch.arange(1, score.size(1) + 1).expand_as(item)[keep].numpy()
    table = {
        kind: state.rows(kind).ids[rows.unsqueeze(1).expand_as(item)[keep].numpy()],
        'rank': rank,
        name: state.item.ids[found],
    }
    for column, values in state.item.columns.items():
        table[column] = pd.Series(values[found]).infer_objects()
    return pd.DataFrame({**table, 'score': score[keep].numpy(), **(more or {})})


def _check_views(views: Mapping[str, int] | None, width: int) -> dict[str, int]:
    if not views:
        return {}
    if not isinstance(views, Mapping) or not all(isinstance(name, str) for name in views):
        raise TypeError(f"'views' need to be a mapping of names to numbers of columns (got {views!r})")
    out = {name: check_count(count, max(width, 1), f'views[{name!r}]') for name, count in views.items()}
    if sum(out.values()) != width:
        raise ValueError(f"'views' need to have {width} columns together, as the embeddings (got {out})")
    return out
