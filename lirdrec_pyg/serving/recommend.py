from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from lirdrec_pyg.ranking import top_k
from lirdrec_pyg.typing import INTERACTS, ITEM, USER, Embeddings

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

    Args:
        embeddings (Embeddings): The embeddings of all users and items.
        data (HeteroData): The view whose ``edge_index`` holds what users have seen.
        users (sequence): Raw ids (:class:`str`) or node ids (:class:`int` or a tensor).
        k (int, optional): The number of items a user. A user with less than ``k`` items left gets fewer rows.
            (default: :obj:`10`)
        exclude_seen (bool, optional): Leave out what the user has interacted with. (default: :obj:`True`)
        candidates (Tensor, optional): The items that may be recommended, a bool mask :math:`(|\mathcal{I}|)`.
        batch_size (int, optional): The number of users scored at once. (default: :obj:`1024`)

    Returns:
        A table with the columns ``user``, ``rank`` (from 1), ``item``, ``title`` (where known) and ``score``, in the
        order of ``users``; users and items by raw id.

    Raises:
        ValueError: If ``k`` is out of range or a user is unknown.
    """
    import pandas as pd

    num_items = data[ITEM].num_nodes
    if not 1 <= k <= num_items:
        raise ValueError(f"'k' needs to be in [1, {num_items}] (got {k})")
    index = node_ids(data, USER, users)
    allowed = torch.ones(num_items, dtype=torch.bool) if candidates is None else candidates.cpu()
    seen = data[INTERACTS].edge_index if exclude_seen else None
    frames = []
    for user, item in top_k(embeddings, index, k, seen, candidates, batch_size):
        score = (embeddings.user[user].unsqueeze(1) * embeddings.item[item]).sum(dim=-1)
        rank = torch.arange(1, k + 1).expand_as(item)
        keep = allowed[item.cpu()]
        if seen is not None:  # a user with few items left has seen ones at the end
            key = (user.unsqueeze(1) * num_items + item).cpu()
            keep &= ~torch.isin(key, (seen[0] * num_items + seen[1]).cpu())
        frame = {'user': user.cpu().unsqueeze(1).expand_as(keep)[keep], 'rank': rank[keep], 'item': item.cpu()[keep]}
        frames.append(pd.DataFrame({**frame, 'score': score.cpu()[keep]}))
    table = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=['user', 'rank', 'item', 'score'])
    items = table['item'].to_numpy()
    table['user'] = _raw(data, USER, table['user'].to_numpy())
    table['item'] = _raw(data, ITEM, items)
    if 'title' in data[ITEM]:
        table.insert(3, 'title', [data[ITEM].title[i] for i in items])
    return table


def node_ids(data: HeteroData, node_type: str, ids: Sequence[str] | Sequence[int] | Tensor) -> Tensor:
    r"""Returns the node ids of raw ids (:class:`str`); integers are node ids already and are checked.

    Raises:
        ValueError: If an id is unknown.
    """
    size = data[node_type].num_nodes
    values = plain_ids(ids)
    if any(isinstance(value, str) for value in values):
        if 'raw_id' not in data[node_type]:
            raise ValueError(f"'data' needs `data['{node_type}'].raw_id` to look up raw ids (got '{values[0]}')")
        lookup = {raw: i for i, raw in enumerate(data[node_type].raw_id)}
        unknown = [value for value in values if value not in lookup]
        if unknown:
            raise ValueError(f'unknown {node_type} ids (got {len(unknown)}, first: {unknown[0]!r})')
        values = [lookup[value] for value in values]
    for value in values:
        if not 0 <= value < size:
            raise ValueError(f'{node_type} ids need to be in [0, {size - 1}] (got {value})')
    return torch.tensor(values, dtype=torch.long)


def _raw(data: HeteroData, node_type: str, ids: Any) -> list[str]:
    raw = data[node_type].get('raw_id')
    return [str(i) if raw is None else str(raw[i]) for i in ids]


def plain_ids(ids: Any) -> list[Any]:
    r"""Returns ids of tensors, arrays, columns or lists as plain numbers and strings."""
    if isinstance(ids, str):
        raise ValueError(f"ids need to be a sequence, as in ['{ids}'] (got the string '{ids}')")
    if hasattr(ids, 'tolist'):
        return ids.tolist()  # type: ignore[no-any-return]
    return [value.item() if isinstance(value, (np.generic, Tensor)) else value for value in ids]
