r"""What the models with a vector for each user and item share."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.init import xavier_uniform_
from torch_geometric.data import HeteroData

from lirdrec_pyg.nn.models.recommender import Recommender
from lirdrec_pyg.nn.objectives import Objective
from lirdrec_pyg.nn.propagation import Graph, Propagation
from lirdrec_pyg.typing import ITEM, USER, Embeddings


class IDRecommender(Recommender):
    r"""A model with a table of users and a table of items.

    Args:
        num_users (int): The number of users.
        num_items (int): The number of items.
        user_channels (int): The width of a user's vector.
        item_channels (int): The width of an item's vector.
        objective (Objective, optional): What training minimises.
    """

    propagation: Propagation

    def __init__(
        self, num_users: int, num_items: int, user_channels: int, item_channels: int, objective: Objective | None
    ) -> None:
        super().__init__(objective)
        self.user = Parameter(torch.empty(num_users, user_channels))
        self.item = Parameter(torch.empty(num_items, item_channels))

    def reset_parameters(self) -> None:
        r"""Sets the parameters to their initial state."""
        xavier_uniform_(self.user)
        xavier_uniform_(self.item)

    def tables(self) -> Mapping[str, str]:
        return {'user': USER, 'item': ITEM}

    def vectors(self, data: HeteroData) -> Embeddings:
        r"""Returns the vectors of the users and items of ``data``, which may be a sampled sub-graph."""
        return Embeddings(rows(self.user, ids(data, USER)), rows(self.item, ids(data, ITEM)))

    def layer_mean(self, vectors: Embeddings, graph: Graph) -> Embeddings:
        r"""Returns the mean of the layers of `LightGCN <https://arxiv.org/abs/2002.02126>`_ on the interactions."""
        user, item = self.propagation(*vectors, graph.to_item, graph.to_user)
        scale = 1 / (self.propagation.num_layers + 1)
        return Embeddings(user * scale, item * scale)


def ids(data: HeteroData, node_type: str, index: Tensor | None = None) -> Tensor | None:
    r"""Returns the ids in the whole graph of some nodes, by default all. Nothing means all nodes in order."""
    n_id: Tensor | None = data[node_type].get('n_id')
    if n_id is None:
        return index
    return n_id if index is None else n_id.index_select(0, index)


def rows(table: Tensor, index: Tensor | None) -> Tensor:
    r"""Returns rows of a table, by default all."""
    # Not table[index]: the backward pass of indexing adds in any order, and runs would differ in the last bits.
    return table if index is None else table.index_select(0, index)
