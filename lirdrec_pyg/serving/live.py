from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from lirdrec_pyg.nn.models.lirdrec import LIRDRec
from lirdrec_pyg.serving.fold_in import fold_in_users
from lirdrec_pyg.serving.new_items import encode_new_items, item_layers, new_item_scale
from lirdrec_pyg.serving.onboard import onboard_items
from lirdrec_pyg.serving.recommend import lookup, plain_ids
from lirdrec_pyg.serving.retriever import Columns, Ids, Retriever
from lirdrec_pyg.typing import INTERACTS, ITEM, USER, Embeddings, check

if TYPE_CHECKING:
    import pandas as pd


class LiveModel:
    r"""A trained model at work from one training to the next: it takes in new items and interactions without training.

    New items are encoded from their content, new users from what they interact with. The ``retriever`` serves both
    beside those of the training, and is where to ask for recommendations. After the next training, another live model
    takes the place of this one. Items of ``data`` without interactions are new, too.

    .. code-block:: python

        live = LiveModel(model, train, scale=1.0)
        live.add_items({'text': torch.randn(1, 8)}, ['item-new'], {'title': ['A cup']})
        live.add_interactions(['user-0', 'anna'], ['item-new', 'item-2'])
        print(live.retriever.recommend(['user-0', 'anna'], k=5))

    It is :func:`onboard_items`, :func:`item_layers`, :func:`encode_new_items` and :func:`fold_in_users` in one, which
    keeps what these share. Changes come from one thread. Others may ask the retriever meanwhile.

    Args:
        model (LIRDRec): The trained model.
        data (HeteroData): The training split, with raw ids.
        k (int, optional): The ``k`` of its item graph, where that does not say it, see :func:`onboard_items`.
            (default: as it was made)
        weights (mapping of str to float, optional): The mixing weights of its item graph, likewise.
            (default: as it was made)
        borrow (float, optional): The ``borrow`` of :func:`encode_new_items`. (default: :obj:`1.0`)
        scale (float, optional): The ``scale`` of :func:`encode_new_items`. (default: the :func:`new_item_scale`)
        **kwargs (optional): The settings of the :class:`Retriever`, such as ``index='HNSW32'``.

    Raises:
        ValueError: If users or items have no raw ids, or an argument is out of range.
    """

    def __init__(
        self,
        model: LIRDRec,
        data: HeteroData,
        *,
        k: int | None = None,
        weights: Mapping[str, float] | None = None,
        borrow: float = 1.0,
        scale: float | None = None,
        **kwargs: Any,
    ) -> None:
        data = check(data)
        for kind in (USER, ITEM):
            if 'raw_id' not in data[kind]:
                raise ValueError(f"'data' needs `data['{kind}'].raw_id`: who comes later is told by raw id")
        self.model = model
        self.data = data
        self.k = k
        self.weights = weights
        self.borrow = borrow
        self.layers = item_layers(model, data)
        self.scale = new_item_scale(model, data, self.layers, borrow) if scale is None else scale
        with torch.no_grad():
            user, item = model(data)
        new = (data[INTERACTS].edge_index[1].bincount(minlength=len(item)) == 0).nonzero().view(-1)
        item[new.to(item.device)] = encode_new_items(model, data, new, self.layers, borrow, self.scale)
        views = dict.fromkeys([*model.in_channels, 'shared'], model.hidden_channels)
        self.retriever = Retriever(Embeddings(user, item), data, **{'views': views} | kwargs)
        self._trained = {kind: set(data[kind].raw_id) for kind in (USER, ITEM)}
        self._items = {raw: i for i, raw in enumerate(data[ITEM].raw_id)}
        self._gone: set[str] = set()
        self._histories: dict[str, list[str]] = {}  # of the users that are new since the training

    def add_items(
        self,
        features: Mapping[str, Tensor],
        ids: Ids,
        items: 'Columns | pd.DataFrame | None' = None,
        masks: Mapping[str, Tensor] | None = None,
    ) -> None:
        r"""Takes in new items.

        Args:
            features (mapping of str to Tensor): The features :math:`(N, C_m)` of each modality, see
                :func:`onboard_items`.
            ids (sequence): Their raw ids.
            items (DataFrame or mapping, optional): What else the retriever is to know of them, such as ``title``. A
                column that is not given is :obj:`None`.
            masks (mapping of str to Tensor, optional): Which of them have each modality :math:`(N)`. (default: all)

        Raises:
            ValueError: If an id is not new, or features or columns do not fit. Nothing has changed then.
        """
        own = _strings(ids, ITEM)
        title = None if items is None or 'title' not in items else list(items['title'])
        data, new = onboard_items(self.data, features, own, title, masks, self.k, self.weights)
        layers = item_layers(self.model, data, self.layers)
        z = encode_new_items(self.model, data, new, layers, self.borrow, self.scale)
        self.retriever.add_items(z, own, items)
        self.data, self.layers = data, layers
        self._items |= dict(zip(own, new.tolist(), strict=True))

    def remove_items(self, ids: Ids) -> None:
        r"""Takes items out of what is recommended. Users who interact with them are still told apart by them.

        Args:
            ids (sequence): Their raw ids.

        Raises:
            ValueError: If an item is not there. Nothing has changed then.
        """
        own = _strings(ids, ITEM)
        self.retriever.remove_items(own)
        self._gone |= set(own)

    def add_interactions(self, users: Ids, items: Ids) -> None:
        r"""Takes in interactions, the latest of a user last. Nobody is recommended these items again.

        A user who is new since the training gets an embedding from all that it has interacted with so far, see
        :func:`fold_in_users`. The others keep theirs until the next training.

        Args:
            users (sequence): The raw id of the user of each interaction; an unknown one is a new user.
            items (sequence): The raw id of its item, which may be one that was removed.

        Raises:
            ValueError: If an item is unknown, or there are not as many of them as users. Nothing has changed then.
        """
        who, what = _strings(users, USER), _strings(items, ITEM)
        if len(who) != len(what):
            raise ValueError(f"'items' need to be as many as 'users', {len(who)} (got {len(what)})")
        lookup(ITEM, self._items, what)
        histories: dict[str, list[str]] = {}
        for user, item in zip(who, what, strict=True):
            if user not in self._trained[USER]:
                own = histories.setdefault(user, [*self._histories.get(user, [])])
                own[:] = [*(one for one in own if one != item), item]
        if histories:
            z = fold_in_users(self.model, self.data, list(histories.values()), layers=self.layers)
            known = [user in self._histories for user in histories]
            new, old = ([user for user, one in zip(histories, known, strict=True) if one == of] for of in (False, True))
            mask = torch.tensor(known, device=z.device)
            if new:
                self.retriever.add_users(z[~mask], new)
            if old:
                self.retriever.update_users(z[mask], old)
            self._histories |= histories
        there = [(user, item) for user, item in zip(who, what, strict=True) if item not in self._gone]
        self.retriever.add_seen([user for user, _ in there], [item for _, item in there])

    def __repr__(self) -> str:
        num_items = len(self._items) - len(self._trained[ITEM])
        new = f'{num_items} new items, {len(self._histories)} new users'
        return f'{self.__class__.__name__}({type(self.model).__name__}, {self.retriever}, {new})'


def _strings(ids: Any, kind: str) -> list[str]:
    r"""Returns raw ids as the data has them. An integer stands for the string of it."""
    values = plain_ids(ids)
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise ValueError(f'{kind} ids need to be strings or integers (got {value!r})')
    return [str(value) for value in values]
