import json
import operator
import os
import platform
import re
import shutil
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from lirdrec_pyg._io import file_digest, locked, naming, replacing, save_array, write_bytes
from lirdrec_pyg._segments import pointers, take_rows
from lirdrec_pyg.ranking import best_of_rows
from lirdrec_pyg.serving.recommend import lookup, plain_ids
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
    check_rows,
    check_scores,
)

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1  # of a saved retriever
SCORES = 2**26  # held at once
ADDED = 1024  # items that join an index at once, while searches wait
GENERATION = 'data-[0-9a-f]{12}'  # the name of a folder with what was saved at once
Ids = Sequence[str] | Sequence[int]
Found = tuple[Tensor, Tensor, Tensor]  # rows (N), scores and items (N, k); no item where the score is -inf


class _State(NamedTuple):
    r"""What a retriever serves at one moment. A change makes another one, so nobody sees half of it."""

    table: dict[str, Tensor]  # the embeddings of users and of items
    ids: dict[str, npt.NDArray[np.object_]]
    position: dict[str, dict[Any, int]]  # of each id
    ptr: Tensor  # what users have seen, as a CSR matrix
    col: Tensor

    @property
    def num_items(self) -> int:
        return len(self.ids[ITEM])

    def seen(self) -> Tensor:
        r"""Returns the pairs of what users have seen."""
        return torch.stack([torch.repeat_interleave(self.ptr.diff()), self.col])


class _Gate:
    r"""Lets in any number of readers or one writer, who goes first. A copy is another gate."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._readers = self._writers = 0

    @contextmanager
    def read(self) -> Iterator[None]:
        with self._change:
            self._change.wait_for(lambda: not self._writers)
            self._readers += 1
        try:
            yield
        finally:
            with self._change:
                self._readers -= 1
                self._change.notify_all()

    @contextmanager
    def write(self) -> Iterator[None]:
        with self._change:
            self._writers += 1
            try:
                self._change.wait_for(lambda: not self._readers)
                yield
            finally:
                self._writers -= 1
                self._change.notify_all()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return _Gate, ()


class Retriever:
    r"""Serves embeddings: the best items for a user and the most similar ones to an item, by inner product, with raw
    ids in and out.

    The index ``'Flat'`` scans all items and is exact. Any other `FAISS factory string
    <https://github.com/facebookresearch/faiss/wiki/The-index-factory>`_ makes an approximate index. It is asked for
    more than ``k`` items, since those that the user has seen and those that filters exclude are then left out. The rest
    is ranked by exact scores. If less than ``k`` items are left, all items are scanned for this user.

    So whatever the index, a result holds no excluded item, its scores are exact, and it has ``k`` items where there are
    as many. Only whether they are the best ones is approximate.

    Threads may share a retriever: each search sees all of a change or nothing of it.

    Args:
        embeddings (Embeddings): The embeddings of all users and items.
        seen (HeteroData or Tensor, optional): A split whose ``edge_index`` holds what users have seen, or such pairs of
            node ids :math:`(2, |\mathcal{E}|)`. (default: nothing)
        user_ids (sequence, optional): The raw ids of the users. (default: those of ``seen``, else ``0, 1, …``)
        item_ids (sequence, optional): The same for items.
        index (str, optional): ``'Flat'`` or, *e.g.*, ``'HNSW32'`` or ``'IVF1024,PQ48np'`` (without ``np``, training a
            product quantiser takes minutes for what is not used here). (default: ``'Flat'``)
        ef_search (int, optional): How many candidates an HNSW index keeps in a search. (default: FAISS's)
        nprobe (int, optional): How many lists an IVF index scans in a search. (default: FAISS's)
        oversample (int, optional): How many times ``k`` items an approximate index is asked for, before they are ranked
            exactly; of use to compressed ones (PQ). (default: :obj:`1`)

    Raises:
        TypeError: If there are no embeddings, or ``seen`` is something else.
        ValueError: If embeddings are not finite, ids or ``seen`` do not fit them, an id is repeated, or the index knows
            no such setting.
    """

    def __init__(
        self,
        embeddings: Embeddings,
        seen: HeteroData | Tensor | None = None,
        *,
        user_ids: Ids | None = None,
        item_ids: Ids | None = None,
        index: str = 'Flat',
        ef_search: int | None = None,
        nprobe: int | None = None,
        oversample: int = 1,
    ) -> None:
        embeddings = check_embeddings(embeddings)
        num_users, num_items = len(embeddings.user), len(embeddings.item)
        if not (seen is None or isinstance(seen, (HeteroData, Tensor, np.ndarray))):
            raise TypeError(
                f"'seen' needs to be a HeteroData or pairs of shape [2, E] (got {type(seen).__name__}): give raw ids "
                'as `user_ids=` and `item_ids=`'
            )
        pairs: Any = torch.empty(2, 0, dtype=torch.long) if seen is None else seen
        if isinstance(seen, HeteroData):
            data = check(seen, 'seen')
            check_embeddings(embeddings, data)
            user_ids = data[USER].get('raw_id') if user_ids is None else user_ids
            item_ids = data[ITEM].get('raw_id') if item_ids is None else item_ids
            pairs = data[INTERACTS].edge_index
        self.index = index
        self.settings: dict[str, Any] = {'ef_search': None, 'nprobe': None, 'oversample': 1}
        self.checkpoint: dict[str, str] | None = None
        self._changes = _Gate()  # of the state: one at a time, and none while it is saved
        self._searches = _Gate()  # of the index, which changes in place
        width = embeddings.item.size(1)
        self._state = _State(
            {kind: torch.empty(0, width) for kind in (USER, ITEM)},
            {kind: np.empty(0, dtype=object) for kind in (USER, ITEM)},
            {kind: {} for kind in (USER, ITEM)},
            torch.zeros(1, dtype=torch.long),
            torch.empty(0, dtype=torch.long),
        )
        self._state = self._extended(USER, embeddings.user, range(num_users) if user_ids is None else user_ids)
        self._state = self._extended(ITEM, embeddings.item, range(num_items) if item_ids is None else item_ids)
        self._state = self._seeing(check_pairs(pairs, (num_users, num_items), 'seen').cpu())
        self._faiss: Any = None if index == 'Flat' else faiss_index(self._state.table[ITEM].numpy(), index)
        self.configure(ef_search, nprobe, oversample)

    def configure(self, ef_search: int | None = None, nprobe: int | None = None, oversample: int | None = None) -> None:
        r"""Changes the settings of the search that are given; see the arguments of the class."""
        given = {'ef_search': ef_search, 'nprobe': nprobe, 'oversample': oversample}
        for name, value in given.items():
            if value is not None and operator.index(value) < 1:
                raise ValueError(f"'{name}' needs to be positive (got {value})")
        for name, key, value in [('ef_search', 'efSearch', ef_search), ('nprobe', 'nprobe', nprobe)]:
            if value is not None:
                import faiss

                try:
                    with self._searches.write():
                        faiss.ParameterSpace().set_index_parameter(self._faiss, key, value)
                except (RuntimeError, TypeError) as error:
                    raise ValueError(f"the index '{self.index}' has no setting '{name}'") from error
        self.settings = self.settings | {name: value for name, value in given.items() if value is not None}

    @property
    def num_users(self) -> int:
        return len(self._state.ids[USER])

    @property
    def num_items(self) -> int:
        return self._state.num_items

    def recommend(
        self,
        users: Ids,
        k: int = 10,
        exclude_seen: bool = True,
        allowed: Ids | None = None,
        blocked: Ids | None = None,
    ) -> 'pd.DataFrame':
        r"""Returns the best items for the given users.

        Args:
            users (sequence): Their raw ids.
            k (int, optional): The number of items a user. A user with less than ``k`` items left gets fewer rows.
                (default: :obj:`10`)
            exclude_seen (bool, optional): Leave out what the user has seen. (default: :obj:`True`)
            allowed (sequence, optional): The raw ids of the only items to recommend. (default: all)
            blocked (sequence, optional): The raw ids of items not to recommend. (default: none)

        Returns:
            A table with the columns ``user``, ``rank`` (from 1), ``item`` and ``score``, in the order of ``users``.

        Raises:
            ValueError: If ``k`` is out of range or an id is unknown.
        """
        state = self._state
        rows = lookup(USER, state.position[USER], users)
        ptr, col = take_rows(state.ptr, state.col, rows)
        if not exclude_seen:
            ptr, col = torch.zeros_like(ptr), col[:0]
        return self._ranked(state, USER, rows, ITEM, k, ptr, col, _mask(state, allowed, blocked))

    def similar_items(
        self, items: Ids, k: int = 10, allowed: Ids | None = None, blocked: Ids | None = None
    ) -> 'pd.DataFrame':
        r"""Returns the items of largest inner product with the given ones, which is the cosine where embeddings are of
        unit length. The item itself is left out.

        Args:
            items (sequence): Their raw ids.
            k (int, optional): The number of similar items each. (default: :obj:`10`)
            allowed (sequence, optional): The raw ids of the only items to return. (default: all)
            blocked (sequence, optional): The raw ids of items not to return. (default: none)

        Returns:
            A table with the columns ``item``, ``rank`` (from 1), ``similar`` and ``score``.

        Raises:
            ValueError: If ``k`` is out of range or an id is unknown.
        """
        state = self._state
        rows = lookup(ITEM, state.position[ITEM], items)
        own = torch.arange(len(rows) + 1), rows
        return self._ranked(state, ITEM, rows, 'similar', k, *own, _mask(state, allowed, blocked))

    def add_items(self, embeddings: Tensor, ids: Ids) -> None:
        r"""Adds new items.

        Args:
            embeddings (Tensor): Their embeddings :math:`(N, D)`.
            ids (sequence): Their raw ids.

        Raises:
            ValueError: If an id is not new, or the embeddings do not fit.
        """
        with self._changes.write():
            state = self._extended(ITEM, embeddings, ids)
            if self._faiss is not None:
                for rows in state.table[ITEM][self._faiss.ntotal :].split(ADDED):
                    with self._searches.write():
                        self._faiss.add(rows.numpy())
                    time.sleep(1e-4)  # lets searches in
            self._state = state

    def add_users(self, embeddings: Tensor, ids: Ids) -> None:
        r"""Adds new users, who have seen nothing yet; see :meth:`add_items`."""
        with self._changes.write():
            self._state = self._extended(USER, embeddings, ids)

    def add_seen(self, users: Ids, items: Ids) -> None:
        r"""Adds pairs of what users have seen.

        Args:
            users (sequence): The raw id of the user of each pair.
            items (sequence): The raw id of its item.

        Raises:
            ValueError: If an id is unknown.
        """
        with self._changes.write():
            state = self._state
            rows = lookup(USER, state.position[USER], users), lookup(ITEM, state.position[ITEM], items)
            if len(rows[0]) != len(rows[1]):
                raise ValueError(f"'items' need to be as many as 'users', {len(rows[0])} (got {len(rows[1])})")
            self._state = self._seeing(torch.stack(rows))

    def _extended(self, kind: str, embeddings: Tensor, ids: Ids) -> _State:
        r"""Returns the state with more users or items, who have seen nothing and whom nobody has seen."""
        x = embeddings.float() if isinstance(embeddings, Tensor) else embeddings  # too large a number becomes infinite
        x, values = check_rows(x, kind).detach().cpu(), plain_ids(ids)
        state = self._state
        table, position = state.table[kind], state.position[kind]
        if x.size(1) != table.size(1):
            raise ValueError(f"'embeddings' need to have {table.size(1)} columns (got {tuple(x.shape)})")
        if len(values) != len(x):
            raise ValueError(f'{kind} ids need to be as many as embeddings, {len(x)} (got {len(values)})')
        position = position | {raw: i for i, raw in enumerate(values, start=len(table))}
        if len(position) < len(table) + len(values):
            count = Counter([*state.ids[kind], *values])
            first = next(raw for raw in values if count[raw] > 1)
            raise ValueError(f'{kind} ids need to be new and unique (got {first!r} again)')
        for other in (state.table[ITEM], state.table[USER], x) if kind == ITEM else (state.table[ITEM],):
            check_scores(x, other)
        own = np.fromiter(values, dtype=object, count=len(values))
        return _State(
            state.table | {kind: torch.cat([table, x]).contiguous()},
            state.ids | {kind: np.concatenate([state.ids[kind], own])},
            state.position | {kind: position},
            torch.cat([state.ptr, state.ptr[-1:].expand(len(x))]) if kind == USER else state.ptr,
            state.col,
        )

    def _seeing(self, pairs: Tensor) -> _State:
        r"""Returns the state with more of what users have seen."""
        state = self._state
        pairs = torch.cat([state.seen(), pairs], dim=1)
        key = (pairs[0] * state.num_items + pairs[1]).unique()
        ptr = pointers(key // max(state.num_items, 1), len(state.ids[USER]))
        return state._replace(ptr=ptr, col=key % max(state.num_items, 1))

    def _ranked(
        self, state: _State, kind: str, rows: Tensor, name: str, k: int, ptr: Tensor, col: Tensor, mask: Tensor | None
    ) -> 'pd.DataFrame':
        import pandas as pd

        k = check_count(k, state.num_items)
        query = state.table[kind][rows]
        search = _scan if self._faiss is None else self._probe
        order, score, item = map(torch.cat, zip(*search(state, query, k, ptr, col, mask), strict=True))
        order = order.argsort()  # the searches may take the rows in another order
        score, item = score[order], item[order]
        keep = score > float('-inf')
        return pd.DataFrame(
            {
                kind: state.ids[kind][rows.unsqueeze(1).expand_as(item)[keep].numpy()],
                'rank': torch.arange(1, k + 1).expand_as(item)[keep].numpy(),
                name: state.ids[ITEM][item[keep].numpy()],
                'score': score[keep].numpy(),
            }
        )

    def _probe(
        self, state: _State, query: Tensor, k: int, ptr: Tensor, col: Tensor, mask: Tensor | None
    ) -> Iterator[Found]:
        r"""Ranks what the index finds, rows of like histories together; rows that get too little are scanned."""
        num_items, oversample = state.num_items, self.settings['oversample']
        limit = num_items // 4
        if mask is None:
            number, left = num_items, num_items - ptr.diff()
        else:
            number = int(mask.sum())
            left = number - torch.zeros(len(query), dtype=torch.long).index_add_(
                0, torch.repeat_interleave(ptr.diff()), mask[col].long()
            )
        order, start = ptr.diff().argsort(descending=True), 0
        short = [order[:0]]
        while start < len(order):
            longest = int(ptr[order[start] + 1] - ptr[order[start]])
            wide = (oversample * k + longest) * num_items // max(number, 1) + 1
            rows = order[start : start + max(1, SCORES // (wide * query.size(1)))]
            start += len(rows)
            if wide > limit:
                short.append(rows)
                continue
            with self._searches.read():
                found = torch.from_numpy(self._faiss.search(query[rows].numpy(), wide)[1])
            here = (found >= 0) & (found < num_items)  # -1: nothing found; others: added meanwhile
            item = torch.where(here, found, 0)
            score = torch.bmm(state.table[ITEM][item], query[rows].unsqueeze(-1)).squeeze(-1)
            part, own = take_rows(ptr, col, rows)
            seen = torch.repeat_interleave(part.diff()) * num_items + own
            keys = torch.arange(len(rows)).unsqueeze(1) * num_items + item
            keep = here & ~torch.isin(keys, seen)
            if mask is not None:
                keep &= mask[item]
            best = score.masked_fill_(~keep, float('-inf')).topk(k, dim=1)
            enough = keep.sum(dim=1) >= left[rows].clamp(max=k)
            yield rows[enough], best.values[enough], item.gather(1, best.indices)[enough]
            short.append(rows[~enough])
        rest = torch.cat(short)
        for rows, values, items in _scan(state, query[rest], k, *take_rows(ptr, col, rest), mask):
            yield rest[rows], values, items

    def save(self, folder: str | os.PathLike[str], checkpoint: str | os.PathLike[str] | None = None) -> None:
        r"""Writes a folder that :meth:`load` reads. Until its ``manifest.json``, which names all other files, is
        replaced in the end, what was in the folder stays whole. What was saved before stays, too, for those who are
        reading it, until the save after this one. Saves into one folder wait for one another.

        Args:
            folder (path): The folder.
            checkpoint (path, optional): The file of the model that made the embeddings, to be referred to by name and
                checksum.

        Raises:
            OSError: If there is no room or no right to write. What was in the folder is whole.
        """
        folder = Path(folder)
        made_by = self.checkpoint
        if checkpoint is not None:
            made_by = {'name': Path(checkpoint).name, 'sha256': file_digest(Path(checkpoint))}
        with naming(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with self._changes.read(), locked(folder) as alone:
                before = _manifest(folder).get('data')
                data = folder / f'data-{uuid.uuid4().hex[:12]}'
                with replacing(data, folder=True) as temporary:
                    about = self._write(temporary, made_by)
                    checksums = {path.name: file_digest(path) for path in sorted(temporary.iterdir())}
                try:
                    manifest = {**about, 'data': data.name, 'sha256': checksums}
                    write_bytes(folder / 'manifest.json', json.dumps(manifest, indent=2).encode() + b'\n')
                except BaseException:
                    shutil.rmtree(data, ignore_errors=True)
                    raise
                self.checkpoint = made_by
                for path in folder.iterdir() if alone else []:  # what is older, and what killed saves left
                    name = re.fullmatch(rf'({GENERATION})|\.{GENERATION}\.[0-9a-f]{{12}}\.tmp', path.name)
                    if name and path.is_dir() and name[1] not in (data.name, before):
                        shutil.rmtree(path, ignore_errors=True)

    def _write(self, folder: Path, made_by: dict[str, str] | None) -> dict[str, Any]:
        r"""Writes all files; returns what they are."""
        import faiss

        state = self._state
        for name, x in [*state.table.items(), ('seen', state.seen())]:
            save_array(folder / f'{name}.npy', x.numpy())
        (folder / 'ids.json').write_text(json.dumps({kind: ids.tolist() for kind, ids in state.ids.items()}))
        if self._faiss is not None:
            with (folder / 'index.faiss').open('wb') as file:  # FAISS itself ignores an error of closing a file
                writer = faiss.PyCallbackIOWriter(file.write)  # type: ignore[attr-defined]
                faiss.write_index(self._faiss, writer)
        about = {
            'format': FORMAT,
            'index': self.index,
            'settings': self.settings,
            'num_users': len(state.ids[USER]),
            'num_items': state.num_items,
            'checkpoint': made_by,
            'versions': {'faiss': faiss.__version__, 'torch': torch.__version__, 'numpy': np.__version__}
            | {'python': platform.python_version()},
        }
        (folder / 'about.json').write_text(json.dumps(about))
        return about

    @classmethod
    def load(cls, folder: str | os.PathLike[str], checkpoint: str | os.PathLike[str] | None = None) -> Self:
        r"""Reads what :meth:`save` wrote. During a save it reads what was there before or what is there then.

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
            manifest = _manifest(folder)
            try:
                return cls._read(folder, manifest, checkpoint)
            except (OSError, ValueError):
                if _manifest(folder) == manifest:  # else there were two saves meanwhile
                    raise

    @classmethod
    def _read(cls, folder: Path, manifest: dict[str, Any], checkpoint: str | os.PathLike[str] | None) -> Self:
        if manifest.get('format', FORMAT) != FORMAT:
            raise ValueError(f"'{folder}' needs to be of format {FORMAT} (got {manifest['format']})")
        damaged = ValueError(
            f"'{folder}' is no saved retriever: its manifest.json is missing or damaged; save the retriever again"
        )
        try:
            index, made_by, settings, checksums = (
                manifest[key] for key in ('index', 'checkpoint', 'settings', 'sha256')
            )
            files = [f'{USER}.npy', f'{ITEM}.npy', 'seen.npy', 'ids.json'] + ['index.faiss'] * (index != 'Flat')
            checksums = {name: checksums[name] for name in [*files, *{'about.json'}.intersection(checksums)]}
            data = folder / re.fullmatch(GENERATION, manifest['data'])[0]  # type: ignore[index]
        except (KeyError, TypeError) as error:
            raise damaged from error
        for name, expected in checksums.items():
            if not (data / name).is_file() or file_digest(data / name) != expected:
                raise ValueError(f"'{data / name}' is missing, truncated or changed: its sha256 needs to be {expected}")
        if 'about.json' in checksums:  # it was not there at first
            about = json.loads((data / 'about.json').read_bytes())
            if about != {key: value for key, value in manifest.items() if key not in ('data', 'sha256')}:
                raise damaged
        if checkpoint is not None and file_digest(Path(checkpoint)) != (made_by or {}).get('sha256'):
            raise ValueError(f"'{folder}' is of another model than '{checkpoint}' (got {made_by})")
        ids = json.loads((data / 'ids.json').read_bytes())
        user, item, seen = (
            torch.from_numpy(np.load(data / f'{name}.npy', allow_pickle=False)) for name in (USER, ITEM, 'seen')
        )
        out = cls(Embeddings(user, item), seen, user_ids=ids[USER], item_ids=ids[ITEM])
        out.index, out.checkpoint = index, made_by
        if index != 'Flat':
            import faiss

            out._faiss = faiss.read_index(str(data / 'index.faiss'))
            found = (out._faiss.ntotal, out._faiss.d)
            if found != tuple(item.shape):
                raise ValueError(
                    f"'{data / 'index.faiss'}' needs to be of {tuple(item.shape)} embeddings (got {found})"
                )
        out.configure(**settings)
        return out

    def __getstate__(self) -> dict[str, Any]:
        import faiss

        with self._changes.read():
            index = None if self._faiss is None else faiss.serialize_index(self._faiss)
            return {**self.__dict__, '_faiss': index}

    def __setstate__(self, state: dict[str, Any]) -> None:
        import faiss

        self.__dict__.update(state)
        if self._faiss is not None:
            self._faiss = faiss.deserialize_index(self._faiss)

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self.num_users}, {self.num_items}, index='{self.index}')"


def _scan(state: _State, query: Tensor, k: int, ptr: Tensor, col: Tensor, mask: Tensor | None) -> Iterator[Found]:
    r"""Ranks all items, for as many rows at once as memory allows."""
    for rows in torch.arange(len(query)).split(max(1, SCORES // state.num_items)):
        score = query[rows] @ state.table[ITEM].t()
        if mask is not None:
            score.masked_fill_(~mask, float('-inf'))
        part, own = take_rows(ptr, col, rows)
        score[torch.repeat_interleave(part.diff()), own] = float('-inf')
        yield rows, *best_of_rows(score, k)


def _mask(state: _State, allowed: Ids | None, blocked: Ids | None) -> Tensor | None:
    r"""Returns which items may be found, nothing where all may."""
    if allowed is None and blocked is None:
        return None
    mask = torch.full((state.num_items,), allowed is None)
    mask[lookup(ITEM, state.position[ITEM], [] if allowed is None else allowed)] = True
    mask[lookup(ITEM, state.position[ITEM], [] if blocked is None else blocked)] = False
    return mask


def _manifest(folder: Path) -> dict[str, Any]:
    r"""Returns the manifest of a folder, an empty one if it is missing or damaged."""
    try:
        manifest = json.loads((folder / 'manifest.json').read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return {}
    return manifest if isinstance(manifest, dict) else {}
