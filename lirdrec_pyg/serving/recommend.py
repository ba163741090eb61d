from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from lirdrec_pyg.ranking import ranked
from lirdrec_pyg.typing import (
    INTERACTS,
    ITEM,
    USER,
    Embeddings,
    check,
    check_count,
    check_embeddings,
    check_mask,
    check_nodes,
)

if TYPE_CHECKING:
    import pandas as pd


@torch.no_grad()
def recommend(
    embeddings: Embeddings,
    data: HeteroData,
    users: Sequence[str] | Sequence[int] | Tensor,
    k: int = 10,
    exclude_seen: bool = True,
    candidates: Tensor | None = None,
    batch_size: int = 1024,
) -> 'pd.DataFrame':
    r"""Returns the best items for the given users as a table for people to read; save it by pandas' ``to_csv`` or
    ``to_parquet``.

    .. code-block:: python

        print(recommend(embeddings, train, users=['user-0', 'user-1'], k=3))

    Args:
        embeddings (Embeddings): The embeddings of all users and items.
        data (HeteroData): The split whose ``edge_index`` holds what users have seen.
        users (sequence): Their raw ids. An integer is a raw id, too: 15 stands for ``'15'``. Where the data has no raw
            ids, the node ids, in a list or a tensor.
        k (int, optional): The number of items a user. A user with less than ``k`` items left gets fewer rows.
            (default: :obj:`10`)
        exclude_seen (bool, optional): Leave out what the user has interacted with. (default: :obj:`True`)
        candidates (Tensor, optional): The items that may be recommended, a bool mask :math:`(|\mathcal{I}|)`.
        batch_size (int, optional): The number of users scored at once. (default: :obj:`1024`)

    Returns:
        A table with the columns ``user``, ``rank`` (from 1), ``item``, ``title`` (where known) and ``score``, in the
        order of ``users``; users and items by raw id.

    Raises:
        ValueError: If ``k`` is out of range, a user is unknown, or the embeddings or the mask do not fit the data.
    """
    import pandas as pd

    data = check(data)
    embeddings = check_embeddings(embeddings, data)
    num_items = data[ITEM].num_nodes
    k = check_count(k, num_items)
    index = node_ids(data, USER, users)
    candidates = None if candidates is None else check_mask(candidates, num_items, 'candidates')
    seen = data[INTERACTS].edge_index if exclude_seen else None
    frames = []
    for user, score, item in ranked(embeddings, index, k, seen, candidates, batch_size):
        keep = score > float('-inf')  # else it is excluded
        rank = torch.arange(1, k + 1, device=keep.device).expand_as(item)
        columns = {'user': user.unsqueeze(1).expand_as(item), 'rank': rank, 'item': item, 'score': score}
        frames.append(pd.DataFrame({name: column[keep].cpu().numpy() for name, column in columns.items()}))
    table = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=['user', 'rank', 'item', 'score'])
    items = table['item'].to_numpy()
    table['user'] = _raw(data, USER, table['user'].to_numpy())
    table['item'] = _raw(data, ITEM, items)
    if 'title' in data[ITEM]:
        table.insert(3, 'title', [data[ITEM].title[i] for i in items])
    return table


def node_ids(data: HeteroData, node_type: str, ids: Sequence[str] | Sequence[int] | Tensor) -> Tensor:
    r"""Returns the node ids of raw ids. Where the data has none, integers are node ids.

    Raises:
        ValueError: If an id is unknown.
    """
    raw = data[node_type].get('raw_id')
    if raw is not None:
        if len(raw) != data[node_type].num_nodes:
            raise ValueError(f"'raw_id' needs one for each {node_type}, {data[node_type].num_nodes} (got {len(raw)})")
        rows = {one: i for i, one in enumerate(plain_ids(raw))}
        if len(rows) < len(raw):
            repeated = next(one for i, one in enumerate(plain_ids(raw)) if rows[one] != i)
            raise ValueError(f"'raw_id' needs to be unique among {node_type}s (got {repeated!r} again)")
        return lookup(node_type, rows, ids)
    values = plain_ids(ids)
    for value in values:
        if isinstance(value, str):
            raise ValueError(f"'data' needs `data['{node_type}'].raw_id` to look up raw ids (got '{value}')")
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f'{node_type} ids need to be integers (got {value!r})')
    return check_nodes(torch.tensor(values, dtype=torch.long), data[node_type].num_nodes, f'{node_type} ids')


def lookup(kind: str, rows: Mapping[Any, int], ids: Any) -> Tensor:
    r"""Returns the rows of raw ids. An integer is looked up as it is and, where that is unknown, as a string. A boolean
    is no id.

    Raises:
        ValueError: If an id is unknown, or there is a tensor where raw ids are strings: it may hold node ids.
    """
    if isinstance(ids, Tensor) and any(isinstance(raw, str) for raw in rows):
        raise ValueError(f'{kind} ids need to be raw ids (got a tensor): give `[raw_id[i] for i in ids.tolist()]`')
    values = plain_ids(ids)
    found = [
        None if isinstance(value, bool) else rows.get(value, rows.get(str(value)) if isinstance(value, int) else None)
        for value in values
    ]
    unknown = [value for value, row in zip(values, found, strict=True) if row is None]
    if unknown:
        raise ValueError(f'unknown {kind} ids (got {len(unknown)}, first: {unknown[0]!r})')
    return torch.tensor(found, dtype=torch.long)


def _raw(data: HeteroData, node_type: str, ids: Any) -> list[str]:
    raw = data[node_type].get('raw_id')
    return [str(i) if raw is None else str(raw[i]) for i in ids]


def plain_ids(ids: Any) -> list[Any]:
    r"""Returns ids of tensors, arrays, columns or lists as plain numbers and strings."""
    if isinstance(ids, str):
        raise ValueError(f"ids need to be a sequence, as in ['{ids}'] (got the string '{ids}')")
    if getattr(ids, 'ndim', 1) != 1:
        raise ValueError(f'ids need to be of one dimension (got {ids.ndim})')
    if hasattr(ids, 'tolist'):
        return ids.tolist()  # type: ignore[no-any-return]
    return [value.item() if isinstance(value, (np.generic, Tensor)) else value for value in ids]
