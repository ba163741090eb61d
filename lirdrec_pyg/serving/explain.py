from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from lirdrec_pyg._segments import pointers, ranks, take_rows
from lirdrec_pyg.nn.kernels import normalize
from lirdrec_pyg.nn.models.recommender import Recommender
from lirdrec_pyg.serving.recommend import node_ids
from lirdrec_pyg.typing import INTERACTS, ITEM, USER, check, check_embeddings

if TYPE_CHECKING:
    import pandas as pd

VALUES = 2**24  # of embeddings of users' own items, held at once


@torch.no_grad()
def explain(
    model: Recommender,
    data: HeteroData,
    users: 'Sequence[str] | Sequence[int] | Tensor | pd.DataFrame',
    items: Sequence[str] | Sequence[int] | Tensor | None = None,
    nearest: int = 3,
) -> 'pd.DataFrame':
    r"""Returns why users should like items: the parts that a score is the sum of, and the user's own items that are
    nearest to the item.

    The parts are those of :meth:`Recommender.parts() <lirdrec_pyg.nn.Recommender.parts>`. With LIRDRec these are what
    the item itself and what its neighbours on the item graph bring, for each view, and the user's recent items. They
    add up to the score exactly, but for rounding.

    .. code-block:: python

        table = recommend(embeddings, train, ['user-0', 'user-1'], k=5)
        print(explain(model, train, table))

    Args:
        model (Recommender): The trained model, in evaluation mode, as :func:`~lirdrec_pyg.fit` leaves it.
        data (HeteroData): The split that it recommends from, as a rule the training split.
        users (sequence or DataFrame): The raw id of the user of each pair, or a table with the columns ``user`` and
            ``item``, such as that of :func:`recommend`. Where the data has no raw ids, node ids.
        items (sequence, optional): The raw id of its item. Left out beside a table.
        nearest (int, optional): The number of own items that are named. (default: :obj:`3`)

    Returns:
        A table with a row for each pair, in the given order: the columns of the given table, or ``user``, ``item`` and
        ``title`` (where known); ``score``, that of ``model(data)``; ``from_<part>`` for each part, *e.g.*,
        ``from_image``, ``from_image_neighbours`` or ``from_recent_items``; ``because``, the raw ids of those training
        items of the user whose embeddings are nearest to that of the item by cosine, nearest first; and
        ``because_title`` (where known), their titles.

    Raises:
        ValueError: If an id is unknown, there are not as many items as users, the table lacks a column or has other
            scores than the model, or ``nearest`` is negative.
    """
    import pandas as pd

    data = check(data)
    if isinstance(users, pd.DataFrame):
        if items is not None:
            raise ValueError("'items' need to be left out beside a table, whose column 'item' they are (got both)")
        for name in (USER, ITEM):
            if name not in users:
                raise ValueError(f"the table needs the columns 'user' and 'item' (got {list(users)})")
        table = users.reset_index(drop=True)
    elif items is None:
        raise ValueError("'items' need to be given beside users: the item of each pair (got none)")
    elif len(users) != len(items):
        raise ValueError(f"'items' need to be as many as 'users', {len(users)} (got {len(items)})")
    else:
        table = pd.DataFrame({USER: list(users), ITEM: list(items)})
    if nearest < 0:
        raise ValueError(f"'nearest' needs to be non-negative (got {nearest})")
    user, item = (node_ids(data, kind, _plain(table[kind], data, kind)) for kind in (USER, ITEM))

    embeddings = check_embeddings(model(data), data)
    score = _scores(*embeddings, user, item)
    if 'score' in table:
        _check_scores(table, score)
    out = table.assign(score=score)
    titles = data[ITEM].get('title')
    if titles is not None and 'title' not in out:
        out.insert(list(out).index(ITEM) + 1, 'title', [titles[i] for i in item.tolist()])
    for name, part in model.parts(data).items():
        out[f'from_{name}'] = _scores(*part, user, item)
    own = _nearest(embeddings.item, data, user, item, nearest)
    raw = data[ITEM].get('raw_id')
    out['because'] = own if raw is None else [[str(raw[i]) for i in ids] for ids in own]
    if titles is not None:
        out['because_title'] = [[titles[i] for i in ids] for ids in own]
    return out


def _check_scores(table: 'pd.DataFrame', score: Any) -> None:
    r"""Checks that what is to be explained is what the model says."""
    given = table['score'].to_numpy(dtype=float)
    off = abs(given - score) > 1e-3 * abs(score).max(initial=0.0)
    if off.any():
        row = int(off.argmax())
        raise ValueError(
            f"the table's scores need to be those of `model(data)` (got {given[row]:.4g} in place of {score[row]:.4g} "
            f'in row {row}): for what a `Retriever` or a `LiveModel` serves, ask it to `recommend(..., explain=True)`'
        )


def _plain(column: Any, data: HeteroData, kind: str) -> list[Any]:
    r"""Returns the ids of a column. Tables show node ids as strings where there are no raw ids."""
    ids = [value.item() if isinstance(value, Tensor) else value for value in column.tolist()]
    if 'raw_id' in data[kind]:
        return ids
    return [int(value) if isinstance(value, str) and value.isdecimal() else value for value in ids]


def _scores(user: Tensor, item: Tensor, users: Tensor, items: Tensor) -> Any:
    r"""Returns the scores of pairs."""
    device = item.device
    return (user[users.to(device)] * item[items.to(device)]).sum(dim=1).cpu().numpy()


def _nearest(x: Tensor, data: HeteroData, user: Tensor, item: Tensor, count: int) -> list[list[int]]:
    r"""Returns, for each pair, the user's own items that are nearest to the item, by cosine; of equal ones, those that
    come first in the data."""
    edge_index = data[INTERACTS].edge_index.to(x.device)
    user, item = user.to(x.device), item.to(x.device)
    ptr, col = pointers(edge_index[0], data[USER].num_nodes), edge_index[1][edge_index[0].argsort(stable=True)]
    z = normalize(x.float())
    out: list[list[int]] = [[] for _ in user]
    most = int((ptr[1:] - ptr[:-1]).max())
    for rows in torch.arange(len(user), device=x.device).split(max(1, VALUES // (most * x.size(1) + 1))):
        start, own = take_rows(ptr, col, user[rows])
        pair = rows.repeat_interleave(start.diff())
        other = own != item[pair]
        own, pair = own[other], pair[other]
        if own.numel() == 0:
            continue
        cosine = (z[own] * z[item[pair]]).sum(dim=1)
        rank = ranks(pair - rows[0], cosine.argsort(descending=True, stable=True))[0]
        best = (rank < count).nonzero().view(-1)
        best = best[(pair[best] * (most + 1) + rank[best]).argsort()]
        for row, one in zip(pair[best].tolist(), own[best].tolist(), strict=True):
            out[row].append(one)
    return out
