import operator
from copy import copy

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.transforms import BaseTransform

from lirdrec_pyg.transforms.splits import time_of
from lirdrec_pyg.typing import INTERACTS, ITEM, REV_INTERACTS, USER, check


class RecentItems(BaseTransform):
    r"""Writes down which items came last: for each user, and for each interaction before it. This is ours, not the
    paper's; ``LIRDRec(recent_items=…)`` reads it.

    Of interactions at the same time, the one that ``edge_index`` names first came first. The interactions are sorted by
    user and item, and so are those of ``rev_interacts``, if there. Apply it *after* the split, so that it reads
    training interactions alone.

    .. code-block:: python

        train = RecentItems(5)(train)
        print(train['user'].recent_items.shape)  # (64, 5), the latest item first

    Args:
        length (int, optional): The number :math:`n` of items. (default: :obj:`10`)

    Shapes:
        - ``('user', 'interacts', 'item').time`` :math:`(|\mathcal{E}|)` →
          ``data['user'].recent_items`` :math:`(|\mathcal{U}|, n)` and
          ``('user', 'interacts', 'item').recent_items`` :math:`(|\mathcal{E}|, n)`, int64: the latest item first, and
          :obj:`-1` where there are no more

    Raises:
        ValueError: If ``length`` is below 1, there is no ``time``, or it is not finite.
    """

    def __init__(self, length: int = 10) -> None:
        if operator.index(length) < 1:
            raise ValueError(f"'length' needs to be at least 1 (got {length})")
        self.length = operator.index(length)

    def forward(self, data: HeteroData) -> HeteroData:
        data = copy(check(data))
        store = data[INTERACTS]
        user, item = store.edge_index
        order = torch.argsort(time_of(data, self), stable=True)
        order = order[torch.argsort(user[order], stable=True)]  # by user, then by time
        count = torch.bincount(user, minlength=data[USER].num_nodes)
        end = count.cumsum(0)
        before = self._before(item[order], torch.arange(user.numel(), device=user.device), (end - count)[user[order]])
        data[USER].recent_items = self._before(item[order], end, end - count)

        recent = torch.empty_like(before)
        recent[order] = before
        store.recent_items = recent
        self._sort(data, INTERACTS, user, item)
        if REV_INTERACTS in data.edge_types:
            self._sort(data, REV_INTERACTS, *data[REV_INTERACTS].edge_index.flip(0))
        return data

    def _sort(self, data: HeteroData, relation: tuple[str, str, str], user: Tensor, item: Tensor) -> None:
        store = data[relation]
        by_item = torch.argsort(user * data[ITEM].num_nodes + item)
        for key, value in list(store.items()):
            if key.startswith(('adj', 'edge_label')) or not isinstance(value, Tensor):  # of no order
                continue
            if store.is_edge_attr(key):
                store[key] = value.index_select(data.__cat_dim__(key, value, store), by_item)

    def _before(self, item: Tensor, end: Tensor, start: Tensor) -> Tensor:
        r"""Returns the items at the positions right before ``end``, down to ``start``."""
        position = end.unsqueeze(1) - torch.arange(1, self.length + 1, device=item.device)
        return torch.where(position >= start.unsqueeze(1), item[position.clamp(min=0)], -1)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(length={self.length})'
