from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.init import xavier_uniform_
from torch_geometric.data import HeteroData

from lirdrec_pyg.nn.models.recommender import Recommender
from lirdrec_pyg.nn.objectives import bpr_loss
from lirdrec_pyg.nn.propagation import Propagation, edges
from lirdrec_pyg.typing import ITEM, USER, Embeddings


class LightGCN(Recommender):
    r"""The baseline with ID embeddings and no content, from the `"LightGCN: Simplifying and Powering Graph Convolution
    Network for Recommendation" <https://arxiv.org/abs/2002.02126>`_ paper.

    .. math::
        \mathbf{z} = \frac{1}{L + 1} \sum_{l=0}^{L} \hat{\mathbf{A}}^l \mathbf{e}

    trained by BPR plus :math:`\frac{\lambda}{2B}` times the squared norm of the batch's embeddings :math:`\mathbf{e}`.

    Args:
        num_users (int): The number of users.
        num_items (int): The number of items.
        hidden_channels (int, optional): The width of the embeddings. (default: :obj:`64`)
        num_layers (int, optional): The number of layers :math:`L`. (default: :obj:`3`)
        reg_weight (float, optional): :math:`\lambda`. (default: :obj:`1e-4`)
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        hidden_channels: int = 64,
        num_layers: int = 3,
        reg_weight: float = 1e-4,
    ) -> None:
        super().__init__(
            num_users=num_users,
            num_items=num_items,
            hidden_channels=hidden_channels,
            num_layers=num_layers,
            reg_weight=reg_weight,
        )
        self.reg_weight = reg_weight
        self.user = Parameter(torch.empty(num_users, hidden_channels))
        self.item = Parameter(torch.empty(num_items, hidden_channels))
        self.propagation = Propagation(num_layers, num_item_layers=0)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        xavier_uniform_(self.user)
        xavier_uniform_(self.item)

    @classmethod
    def _sizes(cls, data: HeteroData) -> dict[str, Any]:
        return {'num_users': data[USER].num_nodes, 'num_items': data[ITEM].num_nodes}

    def encode(self, data: HeteroData) -> Embeddings:
        to_item, to_user, _, _ = edges(data)
        user: Tensor = self.user
        item: Tensor = self.item
        if 'n_id' in data[USER]:
            user, item = user[data[USER].n_id], item[data[ITEM].n_id]
        user, item = self.propagation(user, item, to_item, to_user)
        scale = 1 / (self.propagation.num_layers + 1)
        return Embeddings(user * scale, item * scale)

    def loss(self, data: HeteroData, user: Tensor, pos: Tensor, neg: Tensor) -> Tensor:
        z_user, z_item = self.encode(data)
        u, i, j = z_user.index_select(0, user), z_item.index_select(0, pos), z_item.index_select(0, neg)
        loss = bpr_loss((u * i).sum(dim=-1), (u * j).sum(dim=-1))
        if 'n_id' in data[USER]:
            user, pos, neg = data[USER].n_id[user], data[ITEM].n_id[pos], data[ITEM].n_id[neg]
        rows = self.user.index_select(0, user), self.item.index_select(0, torch.cat([pos, neg]))
        return loss + self.reg_weight * sum(row.square().sum() for row in rows) / (2 * len(user))

    def __repr__(self) -> str:
        return (
            f'{self.__class__.__name__}({self.user.size(0)}, {self.item.size(0)}, '
            f'hidden_channels={self.user.size(1)}, num_layers={self.propagation.num_layers})'
        )
