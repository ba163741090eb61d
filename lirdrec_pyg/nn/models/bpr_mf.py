from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.init import xavier_uniform_
from torch_geometric.data import HeteroData

from lirdrec_pyg.nn.models.recommender import Recommender
from lirdrec_pyg.nn.objectives import bpr_loss
from lirdrec_pyg.typing import ITEM, USER, Embeddings


class BPRMF(Recommender):
    r"""Matrix factorisation, from the `"BPR: Bayesian Personalized Ranking from Implicit Feedback"
    <https://arxiv.org/abs/1205.2618>`_ paper: ID embeddings alone, no graph and no content.

    .. math::
        \hat{s}_{ui} = \mathbf{p}_u^\top \mathbf{q}_i, \quad
        \mathcal{L} = \frac{1}{B} \sum_{(u, i, j)} \Big( -\ln \sigma(\hat{s}_{ui} - \hat{s}_{uj}) + \frac{\lambda}{2}
        \big( \|\mathbf{p}_u\|^2 + \|\mathbf{q}_i\|^2 + \|\mathbf{q}_j\|^2 \big) \Big)

    Args:
        num_users (int): The number of users.
        num_items (int): The number of items.
        hidden_channels (int, optional): The width of the embeddings. (default: :obj:`64`)
        reg_weight (float, optional): :math:`\lambda`. (default: :obj:`1e-4`)

    Shapes:
        - **user:** :math:`(|\mathcal{U}|, d)`
        - **item:** :math:`(|\mathcal{I}|, d)`
    """

    def __init__(self, num_users: int, num_items: int, hidden_channels: int = 64, reg_weight: float = 1e-4) -> None:
        super().__init__(
            num_users=num_users, num_items=num_items, hidden_channels=hidden_channels, reg_weight=reg_weight
        )
        self.reg_weight = reg_weight
        self.user = Parameter(torch.empty(num_users, hidden_channels))
        self.item = Parameter(torch.empty(num_items, hidden_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        xavier_uniform_(self.user)
        xavier_uniform_(self.item)

    @classmethod
    def _sizes(cls, data: HeteroData) -> dict[str, Any]:
        return {'num_users': data[USER].num_nodes, 'num_items': data[ITEM].num_nodes}

    def encode(self, data: HeteroData) -> Embeddings:
        if 'n_id' in data[USER]:
            return Embeddings(self.user[data[USER].n_id], self.item[data[ITEM].n_id])
        return Embeddings(self.user, self.item)

    def loss(self, data: HeteroData, user: Tensor, pos: Tensor, neg: Tensor) -> Tensor:
        z_user, z_item = self.encode(data)
        u, i, j = z_user.index_select(0, user), z_item.index_select(0, pos), z_item.index_select(0, neg)
        penalty = u.square().sum() + i.square().sum() + j.square().sum()
        return bpr_loss((u * i).sum(dim=-1), (u * j).sum(dim=-1)) + self.reg_weight * penalty / (2 * len(user))

    def __repr__(self) -> str:
        return (
            f'{self.__class__.__name__}({self.user.size(0)}, {self.item.size(0)}, hidden_channels={self.user.size(1)})'
        )
