import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.utils import degree

from lirdrec_pyg.nn.models.recommender import Recommender
from lirdrec_pyg.typing import INTERACTS, ITEM, USER, Embeddings


class Popularity(Recommender):
    r"""Scores every item by its number of training interactions, for every user alike. It has nothing to train.

    .. code-block:: python

        print(evaluate(Popularity()(train), test, k=10))  # the least that a model has to beat

    Shapes:
        - **user:** :math:`(|\mathcal{U}|, 1)`, ones
        - **item:** :math:`(|\mathcal{I}|, 1)`, :math:`\log(1 + \deg i)`
    """

    def __init__(self) -> None:
        super().__init__()

    def embed(self, data: HeteroData) -> Embeddings:
        item = data[INTERACTS].edge_index[1]
        count = degree(item, data[ITEM].num_nodes, dtype=torch.float32)
        return Embeddings(item.new_ones(data[USER].num_nodes, 1).float(), count.log1p().unsqueeze(-1))

    def loss(self, data: HeteroData, user: Tensor, pos: Tensor, neg: Tensor) -> Tensor:
        return user.new_zeros((), dtype=torch.float32)
