import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self, TypeVar

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from lirdrec_pyg.nn.objectives import Batch, Objective
from lirdrec_pyg.nn.part import Part, parameters
from lirdrec_pyg.typing import INTERACTS, ITEM, USER, Embeddings, check, modalities

PartT = TypeVar('PartT', bound=Part)


class Recommender(Part, ABC):
    r"""The interface of every model: called on data, it returns embeddings whose inner product is the score.

    A new model is a class with :meth:`embed`. Its :meth:`loss` is that of its objective; one that adds terms of its own
    overrides it.

    .. code-block:: python

        class Free(Recommender):
            def __init__(self, num_users: int, num_items: int) -> None:
                super().__init__(BPR())
                self.user = torch.nn.Parameter(0.1 * torch.randn(num_users, 8))
                self.item = torch.nn.Parameter(0.1 * torch.randn(num_items, 8))

            def embed(self, data: HeteroData) -> Embeddings:
                return Embeddings(self.user, self.item)

        fit(Free.from_data(train, seed=0), train, val, epochs=2)

    Args:
        objective (Objective, optional): What training minimises. (default: none, for a model without parameters)
    """

    power: Tensor

    def __init__(self, objective: Objective | None = None) -> None:
        super().__init__()
        self.objective = None if objective is None else self._own('objective', objective)
        self.register_buffer('power', torch.tensor(1.0))
        self.ids: dict[str, list[str] | None] = {}  # raw ids of the rows of `tables`, known once it was trained

    def _own(self, name: str, part: PartT) -> PartT:
        r"""Returns a copy of a part for this model alone, and shows it among its arguments."""
        self.hparams[name] = part
        return copy.deepcopy(part)

    @property
    def fit_defaults(self) -> dict[str, float]:
        r"""The learning rate ``lr`` and the ``patience`` that suit the model and its objective.
        :func:`~lirdrec_pyg.fit` takes these where it is given none."""
        return {'lr': 1e-3, 'patience': 20} | (self.objective.fit_defaults if self.objective is not None else {})

    @classmethod
    def from_data(cls, data: HeteroData, seed: int | None = None, **kwargs: Any) -> Self:
        r"""Returns a new model that fits the given data.

        Args:
            data (HeteroData): The training split.
            seed (int, optional): The seed of the initial weights. (default: torch's global random state)
            **kwargs (optional): The other arguments of the constructor.
        """
        data = check(data)
        with torch.random.fork_rng(devices=[], enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            return cls(**cls.sizes(data) | kwargs)

    @classmethod
    def sizes(cls, data: HeteroData) -> dict[str, Any]:
        r"""Returns the arguments of the constructor that the data decides."""
        found = {
            'num_users': data[USER].num_nodes,
            'num_items': data[ITEM].num_nodes,
            'in_channels': {name: data[ITEM][f'x_{name}'].size(1) for name in modalities(data)},
        }
        return {name: value for name, value in found.items() if name in parameters(cls)}

    def tables(self) -> Mapping[str, str]:
        r"""Returns the entries of ``state_dict`` with a row for each user (``'user'``) or item (``'item'``)."""
        return {}

    def forward(self, data: HeteroData) -> Embeddings:
        r"""Returns the embeddings of all users and items.

        Args:
            data (HeteroData): The training split, with :class:`~lirdrec_pyg.transforms.InteractionGraph` applied.
        """
        data = check(data)
        self.check_ids(data)
        return self.embed(data).scaled(self.number('power'))

    def parts(self, data: HeteroData) -> dict[str, Embeddings]:
        r"""Returns what the scores of ``model(data)`` are the sum of: embeddings by name, whose inner products add up
        to them. A model that says nothing else has one part, the ``score``.

        Args:
            data (HeteroData): The training split, with :class:`~lirdrec_pyg.transforms.InteractionGraph` applied.
        """
        return {'score': self(data)}

    def check_ids(self, data: HeteroData) -> None:
        r"""Raises a :class:`ValueError` if the users or items of the data are not those that the model was trained on,
        where it has a vector for each."""
        for kind, own in self.ids.items():
            ids = data[kind].get('raw_id')
            if own is not None and ids is not None and 'n_id' not in data[kind] and list(ids) != own:
                raise ValueError(
                    f"the raw ids of '{kind}' need to be those that the model was trained on, in their order (got "
                    f'others): align its rows by `load_model(path, data)`'
                )

    @torch.no_grad()
    def encode(self, data: HeteroData) -> Embeddings:
        r"""Returns ``model(data)`` without a graph of gradients, to rank and to serve."""
        return self(data)  # type: ignore[no-any-return]

    def scale(self, z: Tensor) -> Tensor:
        r"""Returns rows that :meth:`embed` could have returned as ``model(data)`` has them."""
        return Embeddings(z, z[:0]).scaled(self.number('power')).user

    def set_power(self, power: float) -> None:
        r"""Sets how much the length of an embedding counts in the scores, see
        :meth:`Embeddings.scaled() <lirdrec_pyg.typing.Embeddings.scaled>`. The model remembers it in its
        ``state_dict``; training does not depend on it."""
        if not 0 <= power < float('inf'):
            raise ValueError(f"'power' needs to be a non-negative number (got {power})")
        self.power.fill_(power)

    @abstractmethod
    def embed(self, data: HeteroData) -> Embeddings:
        r"""Returns the embeddings that training works on, before :meth:`set_power` applies."""

    def loss(self, data: HeteroData, user: Tensor, pos: Tensor, neg: Tensor) -> Tensor:
        r"""Returns the training objective of a batch.

        Args:
            data (HeteroData): The training split, or a sampled sub-graph of it.
            user (Tensor): Users :math:`(B)`.
            pos (Tensor): An item that each user interacted with :math:`(B)`.
            neg (Tensor): An item that each user did not interact with :math:`(B)`.
        """
        assert self.objective is not None
        loss: Tensor = self.objective(self.batch(data, self.embed(data), user, pos, neg))
        return loss

    def batch(self, data: HeteroData, z: Embeddings, user: Tensor, pos: Tensor, neg: Tensor) -> Batch:
        r"""Returns a batch of triplets with the given embeddings."""
        users, items = z.user, z.item
        return Batch(
            user,
            pos,
            neg,
            lambda i: users.index_select(0, i),
            lambda i: items.index_select(0, i),
            seen_items(data),
            num_seen=data[ITEM].get('num_seen'),
        )

    def on_epoch_start(self, epoch: int) -> None:
        r"""Called before each training epoch, counted from one."""


def seen_items(data: HeteroData) -> Any:
    r"""Returns what tells a :class:`~lirdrec_pyg.nn.Batch` the items that can be negatives. On a sub-graph these are
    the candidates drawn for it, out of ``num_seen``, or none."""
    if 'n_id' in data[USER]:
        candidate = data[ITEM].get('candidate')
        return None if candidate is None else lambda: candidate

    def seen() -> Tensor:
        item = data[INTERACTS].edge_index[1]
        return torch.zeros(data[ITEM].num_nodes, dtype=torch.bool, device=item.device).index_fill_(0, item, True)

    return seen
