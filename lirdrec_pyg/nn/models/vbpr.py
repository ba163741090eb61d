from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear, ModuleDict, Parameter
from torch.nn.init import normal_, xavier_uniform_, zeros_
from torch_geometric.data import HeteroData

from lirdrec_pyg.nn.models.recommender import Recommender
from lirdrec_pyg.nn.objectives import bpr_loss
from lirdrec_pyg.typing import ITEM, USER, Embeddings, modalities, modality_features


class VBPR(Recommender):
    r"""Matrix factorisation on IDs and content side by side, from the `"VBPR: Visual Bayesian Personalized Ranking from
    Implicit Feedback" <https://arxiv.org/abs/1510.01784>`_ paper.

    .. math::
        \hat{s}_{ui} = \boldsymbol{\gamma}_u^\top \boldsymbol{\gamma}_i + \boldsymbol{\theta}_u^\top \mathbf{E}
        \mathbf{f}_i + \beta_i + \boldsymbol{\beta}'^\top \mathbf{f}_i

    where :math:`\mathbf{f}_i` joins the features of all modalities. The paper's terms of the user alone change no
    ranking and are left out. It is trained by BPR plus :math:`\frac{\lambda}{2B}` times the squared norm of the batch's
    embeddings, *i.e.*, of :math:`[\boldsymbol{\gamma}_i; \mathbf{E} \mathbf{f}_i]` for an item.

    As in the implementation of the MMRec framework, there are no biases :math:`\beta` by default and content is of all
    modalities, not the image alone. That implementation penalises the norm, not its square, and adds to
    :math:`\mathbf{E} \mathbf{f}_i` a constant, which cancels in every difference of scores.

    Args:
        num_users (int): The number of users.
        num_items (int): The number of items.
        in_channels (mapping of str to int): The width of each modality.
        hidden_channels (int, optional): The width :math:`d` of IDs and of content, each. (default: :obj:`64`)
        bias (bool, optional): Whether to have the paper's biases :math:`\beta_i` and :math:`\boldsymbol{\beta}'`.
            (default: :obj:`False`)
        reg_weight (float, optional): :math:`\lambda`. (default: :obj:`1e-4`)

    Shapes:
        - **user:** :math:`(|\mathcal{U}|, 2d)`, or :math:`2d + 1` with biases
        - **item:** :math:`(|\mathcal{I}|, 2d)`, or :math:`2d + 1` with biases
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        in_channels: Mapping[str, int],
        hidden_channels: int = 64,
        bias: bool = False,
        reg_weight: float = 1e-4,
    ) -> None:
        super().__init__(
            num_users=num_users,
            num_items=num_items,
            in_channels=dict(in_channels),
            hidden_channels=hidden_channels,
            bias=bias,
            reg_weight=reg_weight,
        )
        self.in_channels = dict(in_channels)
        self.hidden_channels = hidden_channels
        self.bias = bias
        self.reg_weight = reg_weight
        self.user = Parameter(torch.empty(num_users, 2 * hidden_channels))
        self.item = Parameter(torch.empty(num_items, hidden_channels))
        self.item_bias = Parameter(torch.empty(num_items, 1)) if bias else None
        # One matrix on the joint features is a sum of one a modality; its last column is that of the bias.
        self.projections = ModuleDict(
            {name: Linear(width, hidden_channels + bias, bias=False) for name, width in in_channels.items()}
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        xavier_uniform_(self.user)
        xavier_uniform_(self.item)
        if self.item_bias is not None:
            zeros_(self.item_bias)
        fan = sum(self.in_channels.values()) + self.hidden_channels
        for projection in self.projections.values():
            normal_(projection.weight, std=(2 / fan) ** 0.5)  # type: ignore[arg-type]

    @classmethod
    def _sizes(cls, data: HeteroData) -> dict[str, Any]:
        widths = {name: data[ITEM][f'x_{name}'].size(1) for name in modalities(data)}
        return {'num_users': data[USER].num_nodes, 'num_items': data[ITEM].num_nodes, 'in_channels': widths}

    def encode(self, data: HeteroData) -> Embeddings:
        return Embeddings(self._users(data), self._items(data))

    def _users(self, data: HeteroData, index: Tensor | None = None) -> Tensor:
        user = _rows(self.user, _ids(data, USER, index))
        return torch.cat([user, torch.ones_like(user[:, :1])], dim=1) if self.bias else user

    def _items(self, data: HeteroData, index: Tensor | None = None) -> Tensor:
        ids = _ids(data, ITEM, index)
        xs = {name: _rows(modality_features(data, name)[0], index).float() for name in self.in_channels}
        content = sum(projection(xs[name]) for name, projection in self.projections.items())
        if self.item_bias is not None:
            content[:, -1:] += _rows(self.item_bias, ids)
        return torch.cat([_rows(self.item, ids), content], dim=1)

    def loss(self, data: HeteroData, user: Tensor, pos: Tensor, neg: Tensor) -> Tensor:
        u, i, j = self._users(data, user), self._items(data, pos), self._items(data, neg)
        penalty = sum(z[:, : 2 * self.hidden_channels].square().sum() for z in (u, i, j))
        return bpr_loss((u * i).sum(dim=-1), (u * j).sum(dim=-1)) + self.reg_weight * penalty / (2 * len(user))

    def __repr__(self) -> str:
        return (
            f'{self.__class__.__name__}({self.user.size(0)}, {self.item.size(0)}, {self.in_channels}, '
            f'hidden_channels={self.hidden_channels}, bias={self.bias})'
        )


def _ids(data: HeteroData, node_type: str, index: Tensor | None) -> Tensor | None:
    if 'n_id' not in data[node_type]:
        return index
    n_id: Tensor = data[node_type].n_id
    return n_id if index is None else n_id[index]


def _rows(table: Tensor, index: Tensor | None) -> Tensor:
    # Not table[index]: the backward pass of indexing adds in any order, and runs would differ in the last bits.
    return table if index is None else table.index_select(0, index)
