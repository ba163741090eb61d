import json
import os
import platform
import re
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from typing_extensions import Self

from lirdrec_pyg._io import file_digest
from lirdrec_pyg._segments import pointers, take_rows
from lirdrec_pyg.ranking import best_of_rows
from lirdrec_pyg.serving.recommend import lookup, plain_ids
from lirdrec_pyg.typing import INTERACTS, ITEM, USER, Embeddings, check, check_embeddings, check_pairs, check_rows

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1  # of a saved retriever
SCORES = 2**26  # held at once
Ids = Sequence[str] | Sequence[int]
Found = tuple[Tensor, Tensor, Tensor]  # rows (N), scores and items (N, k); no item where the score is -inf


class Retriever:
    r"""Serves embeddings: the best items for a user and the most similar ones to an item, by inner product, with raw
    ids in and out.

    The index ``'Flat'`` scans all items and is exact. Any other `FAISS factory string
    <https://github.com/facebookresearch/faiss/wiki/The-index-factory>`_ makes an approximate index. It is asked for
    more than ``k`` items, since those that the user has seen and those that filters exclude are then left out. The rest
    is ranked by exact scores. If less than ``k`` items are left, all items are scanned for this user.

    So whatever the index, a result holds no excluded item, its scores are exact, and it has ``k`` items where there are
    as many. Only whether they are the best ones is approximate.

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
        width = embeddings.item.size(1)
        self._table = {USER: torch.empty(0, width), ITEM: torch.empty(0, width)}
        self._ids: dict[str, npt.NDArray[np.object_]] = {kind: np.empty(0, dtype=object) for kind in (USER, ITEM)}
        self._position: dict[str, dict[Any, int]] = {USER: {}, ITEM: {}}
        self._faiss: Any = None
        self._add(USER, embeddings.user, range(num_users) if user_ids is None else user_ids)
        self._add(ITEM, embeddings.item, range(num_items) if item_ids is None else item_ids)
        self._seen = check_pairs(pairs, (num_users, num_items), 'seen').cpu()
        self._rowptr: Tensor
        self._sort_seen()
        if index != 'Flat':
            import faiss

            self._faiss = faiss.index_factory(width, index, faiss.METRIC_INNER_PRODUCT)
            self._faiss.train(self._table[ITEM].numpy())
            self._faiss.add(self._table[ITEM].numpy())
        self.configure(ef_search, nprobe, oversample)

    def configure(self, ef_search: int | None = None, nprobe: int | None = None, oversample: int | None = None) -> None:
        r"""Changes the settings of the search that are given; see the arguments of the class."""
        given = {'ef_search': ef_search, 'nprobe': nprobe, 'oversample': oversample}
        for name, value in given.items():
            if value is not None and value < 1:
                raise ValueError(f"'{name}' needs to be positive (got {value})")
        for name, key, value in [('ef_search', 'efSearch', ef_search), ('nprobe', 'nprobe', nprobe)]:
            if value is not None:
                import faiss

                try:
                    faiss.ParameterSpace().set_index_parameter(self._faiss, key, value)
                except (RuntimeError, TypeError) as error:
                    raise ValueError(f"the index '{self.index}' has no setting '{name}'") from error
        self.settings |= {name: value for name, value in given.items() if value is not None}

    @property
    def num_users(self) -> int:
        return len(self._ids[USER])

    @property
    def num_items(self) -> int:
        return len(self._ids[ITEM])

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
        rows = self._positions(USER, users)
        ptr, col = take_rows(self._rowptr, self._seen[1], rows)
        if not exclude_seen:
            ptr, col = torch.zeros_like(ptr), col[:0]
        return self._ranked(USER, rows, ITEM, k, ptr, col, self._mask(allowed, blocked))

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
        rows = self._positions(ITEM, items)
        return self._ranked(ITEM, rows, 'similar', k, torch.arange(len(rows) + 1), rows, self._mask(allowed, blocked))

    def add_items(self, embeddings: Tensor, ids: Ids) -> None:
        r"""Adds new items.

        Args:
            embeddings (Tensor): Their embeddings :math:`(N, D)`.
            ids (sequence): Their raw ids.

        Raises:
            ValueError: If an id is not new, or the embeddings do not fit.
        """
        self._add(ITEM, embeddings, ids)
        if self._faiss is not None:
            self._faiss.add(self._table[ITEM][self._faiss.ntotal :].numpy())

    def add_users(self, embeddings: Tensor, ids: Ids) -> None:
        r"""Adds new users, who have seen nothing yet; see :meth:`add_items`."""
        self._add(USER, embeddings, ids)
        self._rowptr = torch.cat([self._rowptr, self._rowptr[-1:].expand(len(ids))])

    def add_seen(self, users: Ids, items: Ids) -> None:
        r"""Adds pairs of what users have seen.

        Args:
            users (sequence): The raw id of the user of each pair.
            items (sequence): The raw id of its item.

        Raises:
            ValueError: If an id is unknown.
        """
        pairs = torch.stack([self._positions(USER, users), self._positions(ITEM, items)])
        self._seen = torch.cat([self._seen, pairs], dim=1)
        self._sort_seen()

    def _add(self, kind: str, embeddings: Tensor, ids: Ids) -> None:
        x, values = check_rows(embeddings, kind).detach().float().cpu(), plain_ids(ids)
        if x.size(1) != self._table[kind].size(1):
            raise ValueError(f"'embeddings' need to have {self._table[kind].size(1)} columns (got {tuple(x.shape)})")
        if len(values) != len(x):
            raise ValueError(f'{kind} ids need to be as many as embeddings, {len(x)} (got {len(values)})')
        position = self._position[kind] | {raw: i for i, raw in enumerate(values, start=len(self._ids[kind]))}
        if len(position) < len(self._ids[kind]) + len(values):
            count = Counter([*self._ids[kind], *values])
            first = next(raw for raw in values if count[raw] > 1)
            raise ValueError(f'{kind} ids need to be new and unique (got {first!r} again)')
        self._table[kind] = torch.cat([self._table[kind], x]).contiguous()
        self._ids[kind] = np.concatenate([self._ids[kind], np.fromiter(values, dtype=object, count=len(values))])
        self._position[kind] = position

    def _positions(self, kind: str, ids: Ids) -> Tensor:
        return lookup(kind, self._position[kind], ids)

    def _mask(self, allowed: Ids | None, blocked: Ids | None) -> Tensor | None:
        r"""Returns which items may be found, nothing where all may."""
        if allowed is None and blocked is None:
            return None
        mask = torch.full((self.num_items,), allowed is None)
        mask[self._positions(ITEM, [] if allowed is None else allowed)] = True
        mask[self._positions(ITEM, [] if blocked is None else blocked)] = False
        return mask

    def _sort_seen(self) -> None:
        pairs = (self._seen[0] * self.num_items + self._seen[1]).unique()
        self._seen = torch.stack([pairs // self.num_items, pairs % self.num_items])
        self._rowptr = pointers(self._seen[0], self.num_users)

    def _ranked(
        self, kind: str, rows: Tensor, name: str, k: int, ptr: Tensor, col: Tensor, mask: Tensor | None
    ) -> 'pd.DataFrame':
        if not 1 <= k <= self.num_items:
            raise ValueError(f"'k' needs to be in [1, {self.num_items}] (got {k})")
        import pandas as pd

        query = self._table[kind][rows]
        search = self._scan if self._faiss is None else self._probe
        order, score, item = map(torch.cat, zip(*search(query, k, ptr, col, mask), strict=True))
        order = order.argsort()  # the searches may take the rows in another order
        score, item = score[order], item[order]
        keep = score > float('-inf')
        return pd.DataFrame(
            {
                kind: self._ids[kind][rows.unsqueeze(1).expand_as(item)[keep].numpy()],
                'rank': torch.arange(1, k + 1).expand_as(item)[keep].numpy(),
                name: self._ids[ITEM][item[keep].numpy()],
                'score': score[keep].numpy(),
            }
        )

    def _scan(self, query: Tensor, k: int, ptr: Tensor, col: Tensor, mask: Tensor | None) -> Iterator[Found]:
        r"""Ranks all items, for as many rows at once as memory allows."""
        for rows in torch.arange(len(query)).split(max(1, SCORES // self.num_items)):
            score = query[rows] @ self._table[ITEM].t()
            if mask is not None:
                score.masked_fill_(~mask, float('-inf'))
            part, own = take_rows(ptr, col, rows)
            score[torch.repeat_interleave(part.diff()), own] = float('-inf')
            yield rows, *best_of_rows(score, k)

    def _probe(self, query: Tensor, k: int, ptr: Tensor, col: Tensor, mask: Tensor | None) -> Iterator[Found]:
        r"""Ranks what the index finds, rows of like histories together; rows that get too little are scanned."""
        limit = self.num_items // 4
        if mask is None:
            number, left = self.num_items, self.num_items - ptr.diff()
        else:
            number = int(mask.sum())
            left = number - torch.zeros(len(query), dtype=torch.long).index_add_(
                0, torch.repeat_interleave(ptr.diff()), mask[col].long()
            )
        order, start = ptr.diff().argsort(descending=True), 0
        short = [order[:0]]
        while start < len(order):
            longest = int(ptr[order[start] + 1] - ptr[order[start]])
            wide = (self.settings['oversample'] * k + longest) * self.num_items // max(number, 1) + 1
            rows = order[start : start + max(1, SCORES // (wide * query.size(1)))]
            start += len(rows)
            if wide > limit:
                short.append(rows)
                continue
            found = torch.from_numpy(self._faiss.search(query[rows].numpy(), wide)[1])
            item = found.clamp(min=0)  # where the index found nothing there is -1
            score = torch.bmm(self._table[ITEM][item], query[rows].unsqueeze(-1)).squeeze(-1)
            part, own = take_rows(ptr, col, rows)
            seen = torch.repeat_interleave(part.diff()) * self.num_items + own
            keys = torch.arange(len(rows)).unsqueeze(1) * self.num_items + item
            keep = (found >= 0) & ~torch.isin(keys, seen)
            if mask is not None:
                keep &= mask[item]
            best = score.masked_fill_(~keep, float('-inf')).topk(k, dim=1)
            enough = keep.sum(dim=1) >= left[rows].clamp(max=k)
            yield rows[enough], best.values[enough], item.gather(1, best.indices)[enough]
            short.append(rows[~enough])
        rest = torch.cat(short)
        for rows, values, items in self._scan(query[rest], k, *take_rows(ptr, col, rest), mask):
            yield rest[rows], values, items

    def save(self, folder: str | os.PathLike[str], checkpoint: str | os.PathLike[str] | None = None) -> None:
        r"""Writes a folder that :meth:`load` reads. Until its ``manifest.json``, which names all other files, is
        replaced in the end, what was in the folder stays whole.

        Args:
            folder (path): The folder.
            checkpoint (path, optional): The file of the model that made the embeddings, to be referred to by name and
                checksum.
        """
        import faiss

        folder = Path(folder)
        data = folder / f'data-{uuid.uuid4().hex[:12]}'
        data.mkdir(parents=True)
        if checkpoint is not None:
            self.checkpoint = {'name': Path(checkpoint).name, 'sha256': file_digest(Path(checkpoint))}
        try:
            for kind, table in self._table.items():
                np.save(data / f'{kind}.npy', table.numpy())
            np.save(data / 'seen.npy', self._seen.numpy())
            (data / 'ids.json').write_text(json.dumps({kind: ids.tolist() for kind, ids in self._ids.items()}))
            if self._faiss is not None:
                with (data / 'index.faiss').open('wb') as file:  # FAISS itself ignores an error of closing a file
                    writer = faiss.PyCallbackIOWriter(file.write)  # type: ignore[attr-defined]
                    faiss.write_index(self._faiss, writer)
            manifest = {
                'format': FORMAT,
                'data': data.name,
                'index': self.index,
                'settings': self.settings,
                'num_users': self.num_users,
                'num_items': self.num_items,
                'checkpoint': self.checkpoint,
                'versions': {'faiss': faiss.__version__, 'torch': torch.__version__, 'numpy': np.__version__}
                | {'python': platform.python_version()},
                'sha256': {path.name: file_digest(path) for path in sorted(data.iterdir())},
            }
            (data / 'manifest.json').write_text(json.dumps(manifest, indent=2) + '\n')
            os.replace(data / 'manifest.json', folder / 'manifest.json')
        except BaseException:
            shutil.rmtree(data, ignore_errors=True)
            raise
        for old in folder.iterdir():
            if re.fullmatch('data-[0-9a-f]{12}', old.name) and old.is_dir() and old != data:
                shutil.rmtree(old)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], checkpoint: str | os.PathLike[str] | None = None) -> Self:
        r"""Reads what :meth:`save` wrote.

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
        try:
            manifest = json.loads((folder / 'manifest.json').read_text())
            if manifest['format'] != FORMAT:
                raise ValueError(f"'{folder}' needs to be of format {FORMAT} (got {manifest['format']})")
            index, made_by, settings = (manifest[key] for key in ('index', 'checkpoint', 'settings'))
            data = folder / manifest['data']
            files = [f'{USER}.npy', f'{ITEM}.npy', 'seen.npy', 'ids.json'] + ['index.faiss'] * (index != 'Flat')
            checksums = {name: manifest['sha256'][name] for name in files}
        except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"'{folder}' is no saved retriever: its manifest.json is missing or damaged") from error
        for name, expected in checksums.items():
            if not (data / name).is_file() or file_digest(data / name) != expected:
                raise ValueError(f"'{data / name}' is missing, truncated or changed: its sha256 needs to be {expected}")
        if checkpoint is not None and file_digest(Path(checkpoint)) != (made_by or {}).get('sha256'):
            raise ValueError(f"'{folder}' is of another model than '{checkpoint}' (got {made_by})")
        ids = json.loads((data / 'ids.json').read_text())
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

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self.num_users}, {self.num_items}, index='{self.index}')"
